"""Prefill and decode tokens per second of a Hugging Face model on the CPU: mjx and transformers in turn.

Run: python benchmarks/generate.py DIR [--torch-python PATH] [--batch 1] [--prompt 64] [--new 64] [--rounds 5]

DIR is a local Hugging Face folder, such as that of SmolLM2-135M-Instruct (examples/smollm2.md). Of an
encoder-decoder the prefill is the encoder's pass and the first token. Both compute in float32 and choose
greedily; transformers uses its eager mode, torch's fused attention (sdpa) and its key/value cache. The
contenders are processes of their own with the same number of threads. In each round every one generates the
same number of tokens twice, one token and `--new` tokens: the first is the prefill, the difference the
decoding. Ratios are medians over rounds of the times within one round, since what disturbs a shared machine
lasts longer than a round. Both have to generate the same tokens.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from in_turns import in_turns, work

Generate = Callable[[int], list[list[int]]]
"""Continues the prompts by this many tokens, and returns them."""


def prompts(vocabulary: int, batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, vocabulary, (batch, length))


def mjx_generate(folder: str, batch: int, length: int) -> Generate:
    """mjx through its public API."""
    from mjx.inference import Generator, SamplingConfig
    from mjx.models.huggingface import from_pretrained
    from mjx.models.huggingface.folder import HuggingFaceFolder
    from mjx.models.huggingface.generation import start_token_of

    model = from_pretrained(folder, dtype="float32")
    generator = Generator(model.definition, model.parameters)
    rows = prompts(model.config.vocab_size, batch, length).tolist()
    del model
    start = start_token_of(HuggingFaceFolder(folder))
    return lambda new: generator(rows, SamplingConfig(max_new_tokens=new, temperature=0.0, start_token=start))


def transformers_generate(folder: str, batch: int, length: int) -> Generate:
    """`generate` of `AutoModelForCausalLM`, or `AutoModelForSeq2SeqLM`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    answers = AutoConfig.from_pretrained(folder).is_encoder_decoder
    kind = AutoModelForSeq2SeqLM if answers else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    tokens = torch.from_numpy(prompts(model.config.vocab_size, batch, length))
    mask = torch.ones_like(tokens)

    def run(new: int) -> list[list[int]]:
        with torch.inference_mode():
            out = model.generate(
                tokens,
                attention_mask=mask,
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                repetition_penalty=1.0,
                eos_token_id=None,
                pad_token_id=0,
            )
        return out[:, 1 if answers else length :].tolist()

    return run


CONTENDERS = {"mjx": mjx_generate, "transformers": transformers_generate}


def contender(name: str, options: argparse.Namespace) -> tuple[dict, Callable[[], dict]]:
    """The seconds of one token and of `--new` tokens, in every turn."""
    generate = CONTENDERS[name](options.folder, options.batch, options.prompt)
    start = time.perf_counter()
    generate(1)
    tokens = generate(options.new)
    first = {"first": time.perf_counter() - start, "tokens": tokens}

    def turn() -> dict[str, float]:
        seconds = []
        for new in (1, options.new):
            start = time.perf_counter()
            assert all(len(row) == new for row in generate(new))
            seconds.append(time.perf_counter() - start)
        return {"one": seconds[0], "all": seconds[1]}

    return first, turn


def measure(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Contender → the seconds of each round."""
    commands, texts = {}, []
    for name in options.only.split(","):
        python = options.torch_python if name == "transformers" else sys.executable
        commands[name] = [python, __file__, options.folder, "--worker", name]
        for key in ("batch", "prompt", "new", "threads"):
            commands[name] += [f"--{key}", str(getattr(options, key))]

    def ready(name: str, first: dict) -> None:
        print(f"{name}: first calls {first['first']:.1f} s, compilation included", flush=True)
        texts.append(first["tokens"])
        if len(texts) > 1:
            print(f"the tokens are {'' if texts[-1] == texts[0] else 'NOT '}those of the first contender")

    return in_turns(commands, options.rounds, pause=options.pause, ready=ready)


def show(rounds: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    drawn = options.batch * (options.new - 1)
    print(f"{'tokens/s':14}{'prefill':>9}{'best':>9}{'decode':>9}{'best':>9}{'÷ first: prefill, decode':>27}")
    reference = next(iter(rounds.values()), [])
    for name, results in rounds.items():
        prefill = [result["one"] for result in results]
        decode = [result["all"] - result["one"] for result in results]
        speeds = [options.batch * options.prompt / f(prefill) for f in (statistics.median, min)]
        speeds += [drawn / f(decode) for f in (statistics.median, min)]
        ratios = (
            statistics.median(
                ours["one"] / theirs["one"] for ours, theirs in zip(reference, results, strict=True)
            ),
            statistics.median(
                (ours["all"] - ours["one"]) / (theirs["all"] - theirs["one"])
                for ours, theirs in zip(reference, results, strict=True)
            ),
        )
        print(
            f"{name:14}"
            + "".join(f"{speed:9.1f}" for speed in speeds)
            + "".join(f"{r:13.2f}" for r in ratios)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", metavar="DIR", help="a Hugging Face folder")
    parser.add_argument("--only", default=",".join(CONTENDERS), help="contenders, by commas")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="interpreter with torch and transformers"
    )
    parser.add_argument("--batch", type=int, default=1, help="prompts at once")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens to generate, at least 2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="cores that every process may use")
    parser.add_argument(
        "--pause", type=float, default=0.3, help="seconds before a turn: idle threads stop spinning"
    )
    parser.add_argument("--json", help="write all measurements to this file")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.threads, lambda: contender(options.worker, options))
    rounds = measure(options)
    show(rounds, options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rounds, file, indent=2)


if __name__ == "__main__":
    main()
