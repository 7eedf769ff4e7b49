"""Time and memory of attention's implementations, forward and backward, side by side.

Run: python benchmarks/attention.py [--shapes 1x8192x8x64 …] [--implementations reference,xla] [--rounds 5]

A shape is batch × sequence × heads[/kv_heads] × head_dim, causal; `decode` after a colon is one query
that sees all keys, forward only (8x2048x9/3x64:decode). Contenders take turns, so that what disturbs a
shared machine meets all of them; ratios are medians over rounds of the times within one round. Memory
is what the compiled program allocates beyond its inputs and results.
"""

import argparse
import re
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from mjx.errors import InputError
from mjx.kernels.flash_attention import flash_attention

SHAPES = (
    "1x256x9/3x64",
    "8x256x6x64",
    "8x512x6x64",
    "4x1024x6x64",
    "1x2048x9/3x64",
    "1x8192x8x64",
    "1x1024x9x64:decode",
    "8x2048x9/3x64:decode",
)


def inputs(shape: str, dtype: str) -> tuple[list[jax.Array], bool]:
    """q, k and v, and whether it is a step of decoding."""
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)(?:/(\d+))?x(\d+)(:decode)?", shape)
    if found is None:
        raise SystemExit(f"{shape!r} is no shape; write e.g. 1x2048x9/3x64 or 8x2048x9/3x64:decode")
    *sizes, decode = found.groups()
    batch, sequence, heads, kv_heads, head_dim = (int(size or sizes[2]) for size in sizes)
    random = np.random.default_rng(0)
    shapes = [(batch, 1 if decode else sequence, heads, head_dim)] + [
        (batch, sequence, kv_heads, head_dim)
    ] * 2
    return [jnp.asarray(random.standard_normal(s, np.float32), dtype) for s in shapes], bool(decode)


def program(implementation: str, arrays: list[jax.Array], decode: bool):
    """The compiled program."""

    def forward(q, k, v):
        # Where a cache ends is known at run time only.
        offset = jnp.full(q.shape[:1], k.shape[1] - 1) if decode else 0
        return flash_attention(q, k, v, query_offset=offset, implementation=implementation)

    def loss(q, k, v):
        return jnp.sum(jnp.square(forward(q, k, v).astype(jnp.float32)))

    return jax.jit(forward if decode else jax.grad(loss, argnums=(0, 1, 2))).lower(*arrays).compile()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="SHAPE")
    parser.add_argument(
        "--implementations", default="reference,xla", help="the first is what others are compared to"
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    table = Table(title=f"attention, {options.dtype}, {jax.devices()[0].device_kind}", title_justify="left")
    for column in ("shape", "implementation", "best", "time, relative", "memory", "memory, relative"):
        table.add_column(column, justify="left" if column in ("shape", "implementation") else "right")
    for shape in options.shapes:
        arrays, decode = inputs(shape, options.dtype)
        programs, times = {}, {}
        for name in options.implementations.split(","):
            try:
                programs[name] = program(name, arrays, decode)
            except InputError as error:
                print(error)
                continue
            jax.block_until_ready(programs[name](*arrays))
            times[name] = []
        for _ in range(options.rounds):
            for name, run in programs.items():
                start = time.perf_counter()
                for _ in range(20 if decode else 1):
                    jax.block_until_ready(run(*arrays))
                times[name].append((time.perf_counter() - start) / (20 if decode else 1))
        first, *_ = programs
        memory = {name: run.memory_analysis().temp_size_in_bytes for name, run in programs.items()}
        for name in programs:
            ratio = statistics.median(a / b for a, b in zip(times[name], times[first], strict=True))
            table.add_row(
                shape,
                name,
                f"{1e3 * min(times[name]):.2f} ms",
                f"{ratio:.2f}",
                f"{memory[name] / 2**20:.1f} MiB",
                f"{memory[name] / max(memory[first], 1):.3f}",
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
