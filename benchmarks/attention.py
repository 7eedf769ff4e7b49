"""Time and memory of attention's implementations, forward and backward, side by side.

Run: python benchmarks/attention.py [--shapes 1x8192x8x64 …] [--implementations reference,xla] [--rounds 5]
                                    [--relative-bias]

A shape is batch × sequence × heads[/kv_heads] × head_dim, causal; `decode` after a colon is one query
that sees all keys, forward only (8x2048x9/3x64:decode). With --relative-bias each implementation that can
has a further row, with a learned bias of 32 buckets of distances and its gradient. `xla:256` is XLA's with
chunks of so many tokens: --implementations xla:256,xla shows what the CPU's own size gains. Contenders take
turns, so that what disturbs a shared machine meets all of them; ratios are medians over rounds of the times
within one round. Memory is what the compiled program allocates beyond its inputs and results.
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
from mjx.kernels.flash_attention import chunks, flash_attention

CHOSEN = chunks.ON_CPU
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
    """The compiled program, of q, k, v and perhaps a relative bias."""
    implementation, _, chunk = implementation.partition(":")
    chunks.ON_CPU = chunks.ChunkLimits(int(chunk), int(chunk) ** 2) if chunk else CHOSEN

    def forward(q, k, v, relative_bias=None):
        # Where a cache ends is known at run time only.
        offset = jnp.full(q.shape[:1], k.shape[1] - 1) if decode else 0
        return flash_attention(
            q, k, v, query_offset=offset, relative_bias=relative_bias, implementation=implementation
        )

    def loss(*arrays):
        return jnp.sum(jnp.square(forward(*arrays).astype(jnp.float32)))

    function = forward if decode else jax.grad(loss, argnums=tuple(range(len(arrays))))
    return jax.jit(function).lower(*arrays).compile()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="SHAPE")
    parser.add_argument(
        "--implementations", default="reference,xla", help="the first is what others are compared to"
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--relative-bias", action="store_true")
    options = parser.parse_args()

    table = Table(title=f"attention, {options.dtype}, {jax.devices()[0].device_kind}", title_justify="left")
    for column in ("shape", "implementation", "best", "time, relative", "memory", "memory, relative"):
        table.add_column(column, justify="left" if column in ("shape", "implementation") else "right")
    for shape in options.shapes:
        arrays, decode = inputs(shape, options.dtype)
        bias = jnp.asarray(np.random.default_rng(1).standard_normal((32, arrays[0].shape[2]), np.float32))
        named = {"": arrays} | ({", relative bias": [*arrays, bias]} if options.relative_bias else {})
        programs, given, times = {}, {}, {}
        for implementation in options.implementations.split(","):
            for more, operands in named.items():
                name = f"{implementation}{more}"
                try:
                    programs[name] = program(implementation, operands, decode)
                except InputError as error:
                    print(error)
                    continue
                given[name], times[name] = operands, []
                jax.block_until_ready(programs[name](*operands))
        for _ in range(options.rounds):
            for name, run in programs.items():
                start = time.perf_counter()
                for _ in range(20 if decode else 1):
                    jax.block_until_ready(run(*given[name]))
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
