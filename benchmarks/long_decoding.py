"""Memory and time of long prompts and long texts on this machine: a tiny model, of states by default.

Run: python benchmarks/long_decoding.py [--pattern MM] [--lengths 10000,100000] [--chunk 2048] [--one-pass]

Each row is a process of its own. `prefill` reads a prompt and draws one token; `decode` continues one token
by that many, in the compiled loop that every text is made in, left every 250 tokens for the clock to be read.
`temporaries` are what the largest compiled program that ran needs beyond its arguments and results, `state`
is what it is given and gives back (caches, and a number for each token drawn), `peak` is the process's
resident memory at most, most of it XLA and its compiler. `last ÷ first` compares the last thousand tokens
with the first thousand of the same text, begun anew right behind it, since what disturbs a shared machine
lasts longer; all times are medians. `--one-pass` reads the prompts whole too.
"""

import argparse
import contextlib
import importlib
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
from flax import nnx

from mjx.inference import Generator, SamplingConfig
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.parameter import parameters_of
from mjx.models.common.rope import RoPEConfig
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig
from mjx.models.mamba import MambaConfig

BLOCK = 250
"""Tokens between two looks at the clock."""


def tiny(pattern: str) -> MambaConfig:
    return MambaConfig(
        hybrid_pattern=pattern,
        hidden_size=64,
        vocab_size=256,
        ssd=SSDConfig(state=16, head_dim=16),
        selective_scan=SelectiveScanConfig(state=16),
        attention=AttentionConfig(num_heads=4, num_query_groups=2, rope=RoPEConfig()),
        mlp=MLPConfig(features=128),
        dtype="float32",
    )


class EnoughError(Exception):
    """Ends a text."""


def watch(generator: Generator) -> dict[str, tuple[int, int]]:
    """Program → (temporaries, what it is given and gives back) of the calls from here on, in bytes."""
    seen: dict[str, tuple[int, int]] = {}

    def watched(name: str):
        program = getattr(generator, name)

        def call(*arguments, **options):
            if name not in seen:
                memory = program.lower(*arguments, **options).compile().memory_analysis()
                seen[name] = (memory.temp_size_in_bytes, memory.output_size_in_bytes)
            return program(*arguments, **options)

        return call

    for name in ("_prefill", "_read_on", "_decode"):
        setattr(generator, name, watched(name))
    return seen


def measure(kind: str, pattern: str, length: int, chunk: int, rounds: int) -> dict[str, float]:
    generation: Any = importlib.import_module("mjx.inference.generate")
    generation.STREAM_BLOCK = BLOCK
    config = tiny(pattern)
    model = config.build(nnx.Rngs(0))
    generator = Generator(model, parameters_of(model))
    programs = watch(generator)
    prompt = np.random.default_rng(0).integers(0, config.vocab_size, length).tolist()
    prompts, new = ([prompt], 1) if kind == "prefill" else ([prompt[:1]], length)
    sampling = SamplingConfig(max_new_tokens=new, temperature=0.0, prefill_chunk=chunk)

    def clocked(at_most: int | None = None) -> list[float]:
        """When each block of tokens was there."""
        clock: list[float] = []

        def hear(_: list[list[int]]) -> None:
            clock.append(time.perf_counter())
            if len(clock) == at_most:
                raise EnoughError

        with contextlib.suppress(EnoughError):
            generator(prompts, sampling, on_tokens=hear)
        return clock

    clocked(at_most=2)  # compiles
    count, seconds, first, last = 1000 // BLOCK, [], [], []
    for _ in range(rounds):
        start = time.perf_counter()
        clock = clocked()
        seconds.append(clock[-1] - start)
        if kind == "decode":
            last += np.diff(clock)[-1 - count : -1].tolist()  # behind them are fewer than a block
            first += np.diff(clocked(at_most=count + 1)).tolist()
    temporaries, state = (max(sizes) for sizes in zip(*programs.values(), strict=True))
    result = {"temporaries": temporaries, "state": state}
    result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result["microseconds"] = statistics.median(seconds) / length * 1e6
    return result | ({"ratio": statistics.median(last) / statistics.median(first)} if first else {})


def show(options: argparse.Namespace) -> None:
    print(
        f"{options.pattern} on {jax.default_backend()}, parts of {options.chunk} tokens; MB are of 10^6 bytes"
    )
    heads = ("temporaries", "state", "peak", "µs/token", "last ÷ first")
    print(f"{'':26}" + "".join(f"{head:>14}" for head in heads), flush=True)
    lengths = [int(length) for length in options.lengths.split(",")]
    kinds = [("prefill", options.chunk), ("decode", options.chunk)]
    if options.one_pass:
        kinds.insert(1, ("prefill", max(lengths)))
    for kind, chunk in kinds:
        for length in lengths:
            command = [sys.executable, __file__, "--worker", kind, "--pattern", options.pattern]
            command += ["--chunk", str(chunk), "--lengths", str(length), "--rounds", str(options.rounds)]
            said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            name = f"{kind} {length:,}" + (" in one pass" if chunk != options.chunk else "")
            megabytes = [f"{said[key] / 1e6:11.2f} MB" for key in ("temporaries", "state", "peak")]
            ratio = f"{said['ratio']:14.3f}" if "ratio" in said else ""
            print(f"{name:26}" + "".join(megabytes) + f"{said['microseconds']:14.1f}{ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and time of long prompts and long texts")
    parser.add_argument("--pattern", default="MM", help="M Mamba-2, m Mamba-1, * attention, - MLP")
    parser.add_argument("--lengths", default="10000,100000", help="tokens, by commas")
    parser.add_argument("--chunk", type=int, default=2048, help="tokens of a prompt that are read at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one-pass", action="store_true", help="read the prompts in one pass too")
    parser.add_argument("--worker", choices=("prefill", "decode"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        result = measure(options.worker, options.pattern, int(options.lengths), options.chunk, options.rounds)
        print(json.dumps(result))
    else:
        show(options)


if __name__ == "__main__":
    main()
