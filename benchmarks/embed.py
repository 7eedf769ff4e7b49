"""Sentences per second on the CPU: `mjx embed` and sentence-transformers in turn, on the same real sentences.

Run: python benchmarks/embed.py DIR [--torch-python PATH] [--sentences 2000] [--rounds 5]

DIR is a sentence-transformers folder, such as that of all-MiniLM-L6-v2. The sentences are of Python's own
reference (`pydoc_data.topics`), in its order. Both read texts and give embeddings in float32, with batches of
their own: sentence-transformers of 32 texts sorted by length, its default. The contenders are processes of
their own with the same number of threads, and compile or warm up on all sentences first. Ratios are medians
over rounds of the times within one round, since what disturbs a shared machine lasts longer than a round;
beside them those of processor time. Both have to give the same embeddings.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from in_turns import in_turns, work

Embed = Callable[[list[str]], np.ndarray]


def sentences(count: int) -> list[str]:
    from pydoc_data.topics import topics

    from mjx.data.sentences import split_sentences

    return [sentence for topic in sorted(topics) for sentence in split_sentences(topics[topic])][:count]


def mjx_embed(folder: str) -> Embed:
    """mjx through its public API."""
    from pathlib import Path

    from mjx.data.tokenizers import load_tokenizer
    from mjx.inference.embedding import Embedder, TextEmbedder
    from mjx.models.huggingface import from_pretrained
    from mjx.models.huggingface.sentence_modules import read_sentence_modules

    model, says = from_pretrained(folder, dtype="float32"), read_sentence_modules(Path(folder))
    options = {"pooling": says.pooling, "dense": says.dense, "normalize": says.normalize}
    embedder = Embedder(model.definition, model.parameters, **options)
    return TextEmbedder(embedder, load_tokenizer(folder), max_length=says.max_length)


def sentence_transformers_embed(folder: str) -> Embed:
    """`SentenceTransformer.encode`."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = SentenceTransformer(folder, device="cpu")
    return lambda texts: np.asarray(model.encode(texts, show_progress_bar=False))


CONTENDERS = {"mjx": mjx_embed, "sentence-transformers": sentence_transformers_embed}


def contender(name: str, options: argparse.Namespace) -> tuple[dict, Callable[[], dict]]:
    """The seconds of all sentences, the first time and in every turn."""
    with open(options.texts, encoding="utf-8") as file:
        texts = json.load(file)
    embed = CONTENDERS[name](options.folder)
    start = time.perf_counter()
    np.save(f"{options.texts}.{name}.npy", embed(texts))
    first = {"seconds": time.perf_counter() - start}

    def turn() -> dict[str, float]:
        start, cpu = time.perf_counter(), time.process_time()
        embed(texts)
        return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}

    return first, turn


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Contender → the seconds of each round."""
    commands = {}
    for name in CONTENDERS:
        python = options.torch_python if name == "sentence-transformers" else sys.executable
        command = [python, __file__, options.folder, "--worker", name, "--texts", options.texts]
        commands[name] = [*command, "--threads", str(options.threads)]

    def ready(name: str, first: dict) -> None:
        print(f"{name}: first call {first['seconds']:.1f} s, compilation included", flush=True)

    return in_turns(commands, options.rounds, pause=options.pause, ready=ready)


def show(rounds: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    first, count = next(iter(rounds.values())), options.sentences
    print(f"{'sentences/s':24}{'median':>9}{'best':>9}{'per s of CPU':>14}{'÷ first':>9}{'of CPU':>9}")
    for name, results in rounds.items():
        seconds, cpu = ([each[key] for each in results] for key in ("seconds", "cpu"))
        ratios = [
            statistics.median(theirs[key] / ours[key] for ours, theirs in zip(first, results, strict=True))
            for key in ("seconds", "cpu")
        ]
        speeds = count / statistics.median(seconds), count / min(seconds), count / statistics.median(cpu)
        print(
            f"{name:24}{speeds[0]:9.1f}{speeds[1]:9.1f}{speeds[2]:14.1f}"
            + "".join(f"{ratio:9.2f}" for ratio in ratios)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR", help="a sentence-transformers folder")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="interpreter with sentence-transformers"
    )
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="cores that every process may use")
    parser.add_argument(
        "--pause", type=float, default=0.3, help="seconds before a turn: idle threads stop spinning"
    )
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--texts", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.threads, lambda: contender(options.worker, options))
    texts = sentences(options.sentences)
    print(f"{len(texts)} sentences, {sum(map(len, texts)):,} characters")
    with tempfile.TemporaryDirectory() as folder:
        options.texts = f"{folder}/texts.json"
        with open(options.texts, "w", encoding="utf-8") as file:
            json.dump(texts, file)
        rounds = measure(options)
        found = [np.load(f"{options.texts}.{name}.npy") for name in rounds]
        if len(found) > 1:
            print(f"the embeddings are at most {np.abs(found[0] - found[1]).max():.1e} apart")
    show(rounds, options)


if __name__ == "__main__":
    main()
