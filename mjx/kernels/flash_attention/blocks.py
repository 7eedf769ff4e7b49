"""The mathematics of one block of flash attention, on values: what every GPU kernel is made of.

Scores are in units of log 2, so that exp2 serves. Queries are rows and keys columns, except where the
gradients of keys are made: there scores are made the other way round, keys as rows, so that each product
takes them as its left operand, which tensor cores read from registers. Written after Dao et al. 2022
(forward: algorithm 1; backward: algorithm 4) and Dao 2023, section 3.1.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mjx.kernels.matrix_product import product

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


def visible(
    options: Options, queries: Places, keys: Places, *, keys_as_rows: bool = False
) -> Bool[Array, "row column"]:
    """Which keys each query sees."""
    of_query, of_key = (None, slice(None)), (slice(None), None)
    if not keys_as_rows:
        of_query, of_key = of_key, of_query
    mask = queries.inside[of_query] & keys.inside[of_key]
    distance = queries.positions[of_query] - keys.positions[of_key]
    if options.causal:
        mask &= distance >= 0
    if options.window is not None:
        mask &= distance < options.window
        if not options.causal:
            mask &= distance > -options.window
    if queries.segments is not None and keys.segments is not None:
        mask &= queries.segments[of_query] == keys.segments[of_key]
        mask &= (queries.segments > 0)[of_query]
    return mask


def scores(
    options: Options,
    rows: Float[Array, "row head_dim"],
    columns: Float[Array, "column head_dim"],
    mask: Bool[Array, "row column"],
) -> tuple[Float[Array, "row column"], Float[Array, "row column"] | None]:
    """Scores × log2 e of queries and keys, and the slope of the soft-cap there."""
    s, slope = product(rows, columns, transpose_b=True) * options.scale, None
    if options.soft_cap is not None:
        capped = jnp.tanh(s / options.soft_cap)
        s, slope = options.soft_cap * capped, 1 - capped * capped
    return jnp.where(mask, s * LOG2_E, MASKED), slope


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


def probabilities(
    s: Float[Array, "row column"], log_sum: Float[Array, "#row #column"]
) -> Float[Array, "row column"]:
    """Of the backward pass, from the forward pass's log2 of the queries' sums."""
    seen = jnp.where(jnp.isfinite(log_sum), log_sum, 0.0)
    return jnp.where(s > 0.5 * MASKED, jnp.exp2(s - seen), 0.0)


def score_gradient(
    options: Options,
    p: Float[Array, "row column"],
    slope: Float[Array, "row column"] | None,
    d_p: Float[Array, "row column"],
    delta: Float[Array, "#row #column"],
) -> Float[Array, "row column"]:
    """Of `q · k` itself; `d_p` is the gradient of the probabilities, and `delta` the sum over each query's
    output × its gradient, less the gradient of the log-sum-exp."""
    d_s = p * (d_p - delta)
    return (d_s if slope is None else d_s * slope) * options.scale
