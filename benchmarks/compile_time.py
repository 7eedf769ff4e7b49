"""Seconds to trace and to compile a training step at 4 and at 48 layers: depth must cost (almost) nothing.

Run: python benchmarks/compile_time.py [--rounds 3]

Each measurement is the first of a fresh process, so that no cache of JAX helps; the depths take turns. At the
end, the seconds to find what repeats in the pattern of a deep stack. Exits with 1 beyond LIMITS.
"""

import argparse
import statistics
import subprocess
import sys
import time

DEPTHS = (4, 48)
LIMITS = {"ratio of the depths": 1.25, "seconds to find the segments of 300 layers": 5.0}


def measure(num_layers: int) -> None:
    """Print the seconds of tracing and of compiling."""
    from mjx.batch import token_batch
    from mjx.models.common.attention import AttentionConfig
    from mjx.models.common.mlp import MLPConfig
    from mjx.models.common.norm import NormConfig
    from mjx.models.common.rope import RoPEConfig
    from mjx.models.gpt import GPTConfig
    from mjx.training.trainer import Trainer

    config = GPTConfig(
        num_layers=num_layers,
        hidden_size=384,
        vocab_size=8192,
        attention=AttentionConfig(num_heads=6, rope=RoPEConfig()),
        mlp=MLPConfig(features=1024, activation="silu", gated=True),
        norm=NormConfig(kind="rmsnorm"),
    )
    trainer = Trainer(config, steps=10, batch=token_batch(8, 256))
    start = time.perf_counter()
    with trainer.on_mesh():
        lowered = trainer.train_step.lower(trainer.layout.abstract, trainer.batch_layout.abstract)
        traced = time.perf_counter()
        lowered.compile()
    print(traced - start, time.perf_counter() - traced)


def seconds_of_segments(layers: int) -> float:
    """To find that the layers of a stack are one unit."""
    from mjx.models.common.attention import AttentionConfig
    from mjx.models.common.mlp import MLPConfig
    from mjx.models.common.norm import NormConfig
    from mjx.models.common.pattern import SublayerConfig, find_segments

    mixers = (AttentionConfig(num_heads=6), MLPConfig(features=1024))
    pattern = tuple(SublayerConfig(mixer=mixer, norm=NormConfig()) for mixer in mixers) * layers
    start = time.perf_counter()
    find_segments(pattern)
    return time.perf_counter() - start


def main() -> None:
    """Take turns and print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.layers:
        measure(options.layers)
        return
    seconds: dict[int, list[tuple[float, float]]] = {depth: [] for depth in DEPTHS}
    for _ in range(options.rounds):
        for depth in DEPTHS:
            command = [sys.executable, __file__, "--layers", str(depth)]
            out = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
            trace, compile_ = map(float, out.split()[-2:])
            seconds[depth].append((trace, compile_))
    totals = {}
    for depth, rounds in seconds.items():
        trace, compile_ = (statistics.median(column) for column in zip(*rounds, strict=True))
        totals[depth] = trace + compile_
        print(
            f"{depth:3} layers: trace {trace:.2f} s, compile {compile_:.2f} s, together {totals[depth]:.2f} s"
        )
    found = dict(zip(LIMITS, (totals[DEPTHS[1]] / totals[DEPTHS[0]], seconds_of_segments(300)), strict=True))
    for what, value in found.items():
        print(f"{what}: {value:.3f} (limit {LIMITS[what]})")
    sys.exit(any(value > LIMITS[what] for what, value in found.items()))


if __name__ == "__main__":
    main()
