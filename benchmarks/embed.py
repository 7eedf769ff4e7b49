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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

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


def worker(name: str, options: argparse.Namespace) -> None:
    """Answers each line of standard input with the seconds of all sentences."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    # Before the libraries start their thread pools, whose sizes follow from it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with open(options.texts, encoding="utf-8") as file:
        texts = json.load(file)
    try:
        embed = CONTENDERS[name](options.folder)
    except ImportError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)
        return
    start = time.perf_counter()
    np.save(f"{options.texts}.{name}.npy", embed(texts))
    print(json.dumps({"seconds": time.perf_counter() - start}), file=answers, flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        embed(texts)
        seconds = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        print(json.dumps(seconds), file=answers, flush=True)


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Contender → the seconds of each round."""
    processes: dict[str, subprocess.Popen[str]] = {}
    rounds: dict[str, list[dict[str, float]]] = {}

    def answer(name: str) -> dict:
        process = processes[name]
        line = process.stdout.readline() if process.stdout else ""
        return json.loads(line) if line else {"error": f"its process ended with code {process.wait()}"}

    try:
        for name in CONTENDERS:
            python = options.torch_python if name == "sentence-transformers" else sys.executable
            command = [python, __file__, options.folder, "--worker", name, "--texts", options.texts]
            processes[name] = subprocess.Popen(
                [*command, "--threads", str(options.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
            first = answer(name)  # one at a time: compiling takes all cores
            if "error" in first:
                print(f"{name}: left out, {first['error']}")
            else:
                print(f"{name}: first call {first['seconds']:.1f} s, compilation included", flush=True)
                rounds[name] = []
        for _ in range(options.rounds):
            for name, results in rounds.items():
                time.sleep(options.pause)
                pipe = processes[name].stdin
                assert pipe is not None
                pipe.write("\n")
                pipe.flush()
                results.append(answer(name))
    finally:
        for process in processes.values():
            process.communicate()
    return rounds


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
        return worker(options.worker, options)
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
