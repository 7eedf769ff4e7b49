"""The mathematics of one block of flash attention, on values: what every GPU kernel is made of.

Queries are rows, keys columns. Scores are in units of log 2, so that exp2 serves. Written after Dao et al.
2022 (forward: algorithm 1; backward: algorithm 4) and Dao 2023, section 3.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453
MASKED = -1e30
"""A score that weighs nothing, and whose differences are no NaN."""


class Options(NamedTuple):
    """What is fixed when a kernel is compiled."""

    scale: float
    causal: bool
    window: int | None
    soft_cap: float | None
    guarded: bool = False
    """Whether keys that no query of their row sees may hold anything, NaN too."""


class Places(NamedTuple):
    """Where the rows or columns of a block stand."""

    positions: Int[Array, " tokens"]
    inside: Bool[Array, " tokens"]
    """False beyond the array's end."""
    segments: Int[Array, " tokens"] | None
    readable: Bool[Array, " tokens"] | None = None
    """Of keys: False where no query of the row may look, and anything may lie; None: look everywhere."""


class Running(NamedTuple):
    """The softmax of a block of rows over the keys so far."""

    maximum: Float[Array, " row"]
    total: Float[Array, " row"]
    output: Float[Array, "row value_dim"]


def product(a: Array, b: Array, *, transpose_a: bool = False, transpose_b: bool = False) -> Array:
    """A matrix product in float32; float32 operands are never rounded to tf32."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    dimensions = (((0 if transpose_a else 1,), (1 if transpose_b else 0,)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, precision=precision, preferred_element_type=jnp.float32)


def visible(options: Options, rows: Places, columns: Places) -> Bool[Array, "row column"]:
    """Which keys each query sees."""
    mask = rows.inside[:, None] & columns.inside[None, :]
    distance = rows.positions[:, None] - columns.positions[None, :]
    if options.causal:
        mask &= distance >= 0
    if options.window is not None:
        mask &= distance < options.window
        if not options.causal:
            mask &= distance > -options.window
    if rows.segments is not None and columns.segments is not None:
        mask &= (rows.segments[:, None] == columns.segments[None, :]) & (rows.segments > 0)[:, None]
    return mask


def scores(
    options: Options,
    q: Float[Array, "row head_dim"],
    k: Float[Array, "column head_dim"],
    mask: Bool[Array, "row column"],
) -> tuple[Float[Array, "row column"], Float[Array, "row column"] | None]:
    """Scores × log2 e, and the slope of the soft-cap there."""
    s, slope = product(q, k, transpose_b=True) * options.scale, None
    if options.soft_cap is not None:
        capped = jnp.tanh(s / options.soft_cap)
        s, slope = options.soft_cap * capped, 1 - capped * capped
    return jnp.where(mask, s * LOG2_E, MASKED), slope


def clean(x: Float[Array, "column features"], columns: Places) -> Float[Array, "column features"]:
    """Keys or values with zeros where nothing may be read: 0 × NaN would be NaN."""
    return x if columns.readable is None else jnp.where(columns.readable[:, None], x, 0)


def extend(running: Running, s: Float[Array, "row column"], v: Float[Array, "column value_dim"]) -> Running:
    """The softmax with a further block of keys."""
    maximum = jnp.maximum(running.maximum, jnp.max(s, axis=1))
    decay = jnp.exp2(running.maximum - maximum)
    # Rows that have seen nothing yet have maximum = MASKED: their weights would all be one.
    p = jnp.where(s > 0.5 * MASKED, jnp.exp2(s - maximum[:, None]), 0.0)
    total = running.total * decay + jnp.sum(p, axis=1)
    return Running(maximum, total, running.output * decay[:, None] + product(p.astype(v.dtype), v))


def finish(running: Running) -> tuple[Float[Array, "row value_dim"], Float[Array, " row"]]:
    """The output and log2 of the softmax's sum; of rows that see nothing zero and -infinity."""
    seen = running.total > 0
    total = jnp.where(seen, running.total, 1.0)
    log_sum = jnp.where(seen, running.maximum + jnp.log2(total), -jnp.inf)
    return running.output / total[:, None], log_sum


def probabilities(s: Float[Array, "row column"], log_sum: Float[Array, " row"]) -> Float[Array, "row column"]:
    """Of the backward pass, from the forward pass's log2 of the sums."""
    seen = jnp.where(jnp.isfinite(log_sum), log_sum, 0.0)
    return jnp.where(s > 0.5 * MASKED, jnp.exp2(s - seen[:, None]), 0.0)


def score_gradient(
    options: Options,
    p: Float[Array, "row column"],
    slope: Float[Array, "row column"] | None,
    d_out: Float[Array, "row value_dim"],
    v: Float[Array, "column value_dim"],
    delta: Float[Array, " row"],
) -> Float[Array, "row column"]:
    """Of `q · k` itself; `delta` is the row sum of output × its gradient, less the gradient of the
    log-sum-exp."""
    d_s = p * (product(d_out, v, transpose_b=True) - delta[:, None])
    return (d_s if slope is None else d_s * slope) * options.scale
