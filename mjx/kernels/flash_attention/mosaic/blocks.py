"""What the Mosaic kernels of attention share: products on tensor cores, ring buffers, and who sees whom.

Written for Hopper's wgmma and TMA, after Shah et al. 2024 (FlashAttention-3), section 3.1.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Bool, Float

from mjx.kernels.flash_attention.blocks import LOG2_E, MASKED, Options

ROWS = plgpu.Layout.WGMMA
"""How a warpgroup holds the result of a product: 64 rows a step."""
PER_ROW = plgpu.Layout.WGMMA.reduce(1)
PER_COLUMN = plgpu.Layout.WGMMA.reduce(0)

PRODUCER_REGISTERS = 24
"""Of a thread that only starts copies; the rest goes to those that compute (setmaxnreg)."""
COMPUTE_REGISTERS = {1: 240, 2: 240, 3: 160}
"""By the number of warpgroups that compute: with the producer's at most 65536 in a block."""


def multiply(a: Any, b: Any, *, transpose_b: bool) -> Float[Array, "row column"]:
    """A product of two refs to shared memory, in float32. Returns when the tensor cores have read both."""

    def body(acc):
        plgpu.wgmma(acc, a, b.transpose((1, 0)) if transpose_b else b)
        return acc[...]  # waits: afterwards the buffers may be overwritten

    return pl.run_scoped(
        body, plgpu.WGMMAAccumulatorRef((a.shape[0], b.shape[0 if transpose_b else 1]), jnp.float32)
    )


def accumulate(acc: Float[Array, "row column"], a: Float[Array, "row inner"], b: Any) -> Array:
    """acc + a b, with a in registers and a ref b to shared memory. Returns when b has been read."""

    def body(ref):
        plgpu.wgmma(ref, a, b)

    result: Any = pl.run_state(body)(plgpu.WGMMAAccumulatorRef.init(acc))  # waits at its end
    return result


def zeros(rows: int, columns: int) -> Float[Array, "rows columns"]:
    return plgpu.layout_cast(jnp.zeros((rows, columns), jnp.float32), ROWS)


def full(rows: int, value: float) -> Float[Array, " rows"]:
    return plgpu.layout_cast(jnp.full((rows,), value, jnp.float32), PER_ROW)


def over_columns(x: Float[Array, " row"], shape: tuple[int, ...]) -> Float[Array, "row column"]:
    return lax.broadcast_in_dim(x, shape, [0])


def over_rows(x: Float[Array, " column"], shape: tuple[int, ...]) -> Float[Array, "row column"]:
    return lax.broadcast_in_dim(x, shape, [1])


def tiles(*shape: int, dtype: Any) -> Any:
    """Shared memory for matrices, laid out as wgmma and TMA take it with the least bank conflicts."""
    transforms = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
    return plgpu.SMEM(shape, dtype, transforms=transforms)


class Ring(NamedTuple):
    """The place of a step in buffers that are used in turn."""

    slot: Any
    reused: Any
    """Whether an earlier step had the slot, so that its readers must be waited for."""


def ring(step: Any, stages: int) -> Ring:
    return Ring(lax.rem(step, jnp.int32(stages)), step >= stages)


def refill(at: Ring, free: Any, *copies: tuple[Any, Any, Any]) -> None:
    """Start copies (from, buffers, barriers) into a slot that all its readers have released."""

    @pl.when(at.reused)
    def wait():  # the first time around nobody has read: no phase to wait for
        plgpu.barrier_wait(free.at[at.slot])

    for source, buffer, ready in copies:
        plgpu.copy_gmem_to_smem(source, buffer.at[at.slot], ready.at[at.slot])


class Span(NamedTuple):
    """Blocks of the other side, of which a block of this side sees something (low to high), or all
    (full_low to full_high)."""

    low: Any
    full_low: Any
    full_high: Any
    high: Any


def span(
    first: Any, size: int, shift: int, reach: tuple[int | None, int | None], other: int, length: int
) -> Span:
    """Of a block of `size` tokens from `first` on.

    `shift` brings its positions to the other side's, which has `length` tokens in blocks of `other`; `reach`
    is how far back and ahead a token sees, None: to the end.
    """
    back, ahead = reach
    count = -(-length // other)
    start = first + shift
    last = start + (size - 1)
    zero, end = jnp.int32(0), jnp.int32(count)

    def blocks(tokens: Any) -> Any:  # of tokens ≥ 0: division that rounds down
        return lax.div(jnp.maximum(tokens, 0).astype(jnp.int32), jnp.int32(other))

    low = zero if back is None else jnp.minimum(blocks(start - back), end)
    high = end if ahead is None else jnp.minimum(blocks(last + ahead + other), end)
    full_low = zero if back is None else blocks(last - back + (other - 1))
    full_high = jnp.int32(length // other)
    if ahead is not None:
        full_high = jnp.minimum(full_high, blocks(start + ahead + 1))
    high = jnp.maximum(low, high)
    full_low = jnp.clip(full_low, low, high)
    return Span(low, full_low, jnp.clip(full_high, full_low, high), high)


def reach(options: Options) -> tuple[int | None, int | None]:
    """How far back and ahead of its own position a query sees; None: to the end."""
    back = None if options.window is None else options.window - 1
    return back, 0 if options.causal else back


def loop(of: Span, step: Any, carry: Any, *, ragged: bool, bounded: tuple[bool, bool]) -> Any:
    """step(block, carry, masked) over a span, without masks where all is seen.

    `bounded`: whether sight ends before the array's begin and before its end; `ragged`: whether the last
    block is only partly filled. What cannot happen is not compiled.
    """
    begins, ends = bounded
    masked, plain = (lambda i, c: step(i, c, True)), (lambda i, c: step(i, c, False))
    if begins:
        carry = lax.fori_loop(of.low, of.full_low, masked, carry)
    carry = lax.fori_loop(of.full_low, of.full_high, plain, carry)
    if ends or ragged:
        carry = lax.fori_loop(of.full_high, of.high, masked, carry)
    return carry


def visible(
    options: Options, shape: tuple[int, ...], distance: Any, keys_left: Any, *, queries_down: bool
) -> Bool[Array, "row column"]:
    """Which keys are seen, of a block whose rows are queries, or else keys.

    `distance` is the position of its first query less that of its first key, `keys_left` the number of keys
    from its first on where some may be missing, else None.
    """
    axis = 0 if queries_down else 1
    of_queries = plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=ROWS)
    of_keys = plgpu.broadcasted_iota(jnp.int32, shape, 1 - axis, layout=ROWS)
    conditions = []
    if keys_left is not None:
        conditions.append(of_keys < keys_left)
    if options.causal:
        conditions.append(of_queries + distance >= of_keys)
    if options.window is not None:
        conditions.append(of_queries + (distance - options.window) < of_keys)
        if not options.causal:
            conditions.append(of_queries + (distance + options.window) > of_keys)
    return functools.reduce(lambda a, b: a & b, conditions)


def unit(options: Options) -> float:
    """What a score as `scores` gives it counts, in units of log 2."""
    return (options.scale if options.soft_cap is None else options.soft_cap) * LOG2_E


def scores(options: Options, products: Array, mask: Array | None) -> tuple[Array, Array | None]:
    """Scores ÷ `unit`, so that the multiplication joins the subtraction before exp2; and the slope of the
    soft-cap there."""
    s, slope = products, None
    if options.soft_cap is not None:
        s = jnp.tanh(products * (options.scale / options.soft_cap))
        slope = 1 - s * s
    if mask is not None:
        s = jnp.where(mask, s, jnp.float32(MASKED / unit(options)))
    return s, slope


def compiler_params() -> Any:
    # Approximate exp2, log2 and tanh: their error lies below that of the 16-bit probabilities.
    return plgpu.CompilerParams(approx_math=True)


def int_axis(name: str) -> jax.Array:
    return lax.axis_index(name).astype(jnp.int32)
