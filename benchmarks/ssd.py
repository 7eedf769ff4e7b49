"""Time and memory of state-space duality on this machine: the sequential reference and the chunked XLA path.

Run: python benchmarks/ssd.py [--lengths 1024,4096,16384] [--chunks 64] [--rounds 5] [--dtype float32]

Forward and backward of all inputs, one program. Implementations take turns within a round; seconds are the
medians over rounds, and ratios the medians of the ratios within one round, since what disturbs a shared
machine lasts longer than a round. Memory is what the compiled program needs beyond inputs and results.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mjx.kernels.ssd import ssd

REFERENCE = "reference"


def inputs(options: argparse.Namespace, length: int) -> dict[str, jax.Array]:
    random = np.random.RandomState(0)
    batch, heads, groups = options.batch, options.heads, options.groups
    dtype = jnp.dtype(options.dtype)
    return {
        "x": jnp.asarray(random.randn(batch, length, heads, options.head_dim), dtype),
        "dt": jnp.asarray(
            np.exp(random.uniform(np.log(1e-3), np.log(0.1), (batch, length, heads))), "float32"
        ),
        "A": jnp.asarray(-random.uniform(1, 16, heads), "float32"),
        "B": jnp.asarray(random.randn(batch, length, groups, options.state), dtype),
        "C": jnp.asarray(random.randn(batch, length, groups, options.state), dtype),
        "D": jnp.ones(heads),
    }


def compiled(arrays: dict[str, jax.Array], **options) -> tuple[Callable[[], object], int]:
    """A call that waits for its results, and the bytes of its temporaries."""

    def loss(arrays):
        return jnp.sum(jnp.sin(ssd(**arrays, **options).astype(jnp.float32)))

    program = jax.jit(jax.value_and_grad(loss)).lower(arrays).compile()
    memory = program.memory_analysis()
    return lambda: jax.block_until_ready(program(arrays)), memory.temp_size_in_bytes if memory else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="1024,4096,16384")
    parser.add_argument("--chunks", default="64", help="chunk sizes of the XLA path, by commas")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--state", type=int, default=128)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest-reference", type=int, default=4096, help="its memory is a state per token")
    options = parser.parse_args()
    print(
        f"batch {options.batch}, {options.heads} heads of {options.head_dim}, {options.groups} groups, "
        f"state {options.state}, {options.dtype}, on {jax.devices()[0].device_kind}; forward and backward"
    )
    print(f"{'length':>8} {'':16}{'seconds':>9}{'tokens/s':>11}{'temporary MB':>14}{'× faster':>10}")
    for length in map(int, options.lengths.split(",")):
        arrays = inputs(options, length)
        programs = {
            f"xla, chunk {chunk}": compiled(arrays, implementation="xla", chunk_size=int(chunk))
            for chunk in options.chunks.split(",")
        }
        if length <= options.longest_reference:
            programs[REFERENCE] = compiled(arrays, implementation=REFERENCE)
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for measured in range(-1, options.rounds):  # the first round warms up
            for name, (call, _) in programs.items():
                start = time.perf_counter()
                call()
                if measured >= 0:
                    seconds[name].append(time.perf_counter() - start)
        for name, (_, memory) in programs.items():
            median = statistics.median(seconds[name])
            ratio = "-"
            if REFERENCE in seconds:
                pairs = zip(seconds[REFERENCE], seconds[name], strict=True)
                ratio = f"{statistics.median(theirs / ours for theirs, ours in pairs):.1f}"
            speed = options.batch * length / median
            print(
                f"{length:8} {name:16}{median:9.3f}{speed:11.0f}{memory / 1e6:14.1f}{ratio:>10}", flush=True
            )


if __name__ == "__main__":
    main()
