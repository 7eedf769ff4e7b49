"""Rows sorted by expert and back: index maps, and gathers whose gradients are gathers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Sorted(NamedTuple):
    """The choices of some tokens, sorted by expert; of one expert by token."""

    order: Int[Array, " choices"]
    """The choice (token · top_k + rank) at each place. Those of no expert here come last."""
    place: Int[Array, " choices"]
    """Of each choice among those of its expert."""
    sizes: Int[Array, " experts"]
    """Choices of each expert."""
    start: Int[Array, " experts"]
    """The place of each expert's first."""


def sort_choices(ids: Int[Array, "tokens top_k"], experts: int) -> Sorted:
    """`ids` that are `experts` are of none here."""
    flat = ids.reshape(-1)
    order = jnp.argsort(flat, stable=True).astype(jnp.int32)
    counts = jnp.sum(flat[None, :] == jnp.arange(experts, dtype=flat.dtype)[:, None], axis=1, dtype=jnp.int32)
    start = jnp.cumsum(counts, dtype=jnp.int32) - counts
    back = jnp.zeros_like(order).at[order].set(jnp.arange(flat.size, dtype=jnp.int32), unique_indices=True)
    place = back - jnp.append(start, jnp.sum(counts, dtype=jnp.int32))[flat]
    return Sorted(order, place, counts, start)


@jax.custom_vjp
def spread(
    tokens: Float[Array, "tokens features"],
    token: Int[Array, " rows"],
    rows: Int[Array, "tokens top_k"],
) -> Float[Array, "rows features"]:
    """Copies of tokens: row r is that of `token[r]`, of zeros where that is beyond the end.

    `rows` is the inverse: where the copies of each token are; beyond the end where there is none.
    """
    return _taken(tokens, token)


@jax.custom_vjp
def gathered_sum(
    values: Float[Array, "rows features"],
    rows: Int[Array, "tokens top_k"],
    token: Int[Array, " rows"],
) -> Float[Array, "tokens features"]:
    """Of every token, the sum of its rows; the inverse map is `token`, as for `spread`."""
    return jnp.sum(_taken(values, rows), axis=1)


def _taken(array: Array, indices: Array) -> Array:
    return jnp.take(array, indices, axis=0, mode="fill", fill_value=0)


spread.defvjp(
    lambda tokens, token, rows: (_taken(tokens, token), (token, rows)),
    lambda maps, slope: (jnp.sum(_taken(slope, maps[1]), axis=1), None, None),
)
gathered_sum.defvjp(
    lambda values, rows, token: (jnp.sum(_taken(values, rows), axis=1), token),
    lambda token, slope: (_taken(slope, token), None, None),
)
