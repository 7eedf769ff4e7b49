"""Every device sends each expert a cell of one size, and gets it back: an all-to-all there and one back.

The cheaper way for many devices and few experts a token; products are batched, without a grouped kernel.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from mjx.models.common.moe.experts import KEPT, OneExpert, Weights
from mjx.models.common.moe.layout import Layout, axis_of
from mjx.models.common.moe.permutation import gathered_sum, sort_choices, spread
from mjx.models.common.pattern import exchanging


class Cells(NamedTuple):
    """Which choice is in which row of which expert's cell."""

    rows: Int[Array, "tokens top_k"]
    """Of each choice: expert · size + place; beyond the end if its cell is full, or it is of no expert."""
    choice: Int[Array, " rows"]
    """In each row; beyond the end in empty ones."""
    overflow: Bool[Array, "tokens top_k"]
    """Choices for which their expert's cell has no room."""


def cell_rows(tokens: int, top_k: int, experts: int, cell: float) -> int:
    """Rows of a cell, for so many tokens of a device."""
    return min(tokens, max(1, math.ceil(cell * tokens * top_k / experts)))


def cells_of(ids: Int[Array, "tokens top_k"], experts: int, size: int) -> Cells:
    """Each expert's first choices, of as many as its cell holds."""
    chosen, flat = sort_choices(ids, experts), ids.reshape(-1)
    fits = (chosen.place < size) & (flat < experts)
    rows = jnp.where(fits, flat * size + chosen.place, experts * size).reshape(ids.shape)
    number = jnp.arange(size, dtype=jnp.int32)
    sorted_ = jnp.minimum(chosen.start[:, None] + number, flat.size - 1)
    choice = jnp.where(number < chosen.sizes[:, None], chosen.order[sorted_], flat.size).reshape(-1)
    return Cells(rows, choice, ((flat < experts) & ~fits).reshape(ids.shape))


@exchanging("experts")
def fixed(
    layout: Layout,
    expert: OneExpert,
    tokens: Float[Array, "tokens embed"],
    cells: Cells,
    probabilities: Float[Array, "tokens top_k"],
    weights: Weights,
) -> Float[Array, "tokens embed"]:
    """The sum of every token over its experts, where their cells have room; `weights` are this device's."""
    owners, top_k = layout.size(layout.owners), probabilities.shape[1]
    token = jnp.minimum(cells.choice // top_k, tokens.shape[0])
    rows = spread(tokens, token, cells.rows)
    factors = jnp.take(probabilities.reshape(-1), cells.choice, mode="fill", fill_value=0)
    here = weights.up.shape[0]
    size = rows.shape[0] // (owners * here)
    # (owners, experts of each, size): this device's cells for all experts; then all devices' for its own.
    rows, factors = rows.reshape(owners, here, size, -1), factors.reshape(owners, here, size)
    if layout.owners:
        rows, factors = (_exchanged(array, layout) for array in (rows, factors))
    rows = jnp.swapaxes(rows, 0, 1).reshape(here, owners * size, -1)
    factors = jnp.swapaxes(factors, 0, 1).reshape(here, owners * size)
    split = layout.ordered(set(layout.hidden) & set(layout.token_axes))
    whole = layout.ordered(set(layout.hidden) - set(layout.token_axes))
    if split:
        rows, factors = (
            jax.lax.all_gather(array, axis_of(split), axis=1, tiled=True) for array in (rows, factors)
        )
    rows, factors = checkpoint_name(rows, KEPT), checkpoint_name(factors, KEPT)
    y = jax.vmap(expert)(rows, factors, weights)
    if split:
        y = jax.lax.psum_scatter(y, axis_of(split), scatter_dimension=1, tiled=True)
    if whole:
        y = jax.lax.psum(y, axis_of(whole))
    y = jnp.swapaxes(y.reshape(here, owners, size, -1), 0, 1)
    if layout.owners:
        y = _exchanged(y, layout)
    return gathered_sum(y.reshape(owners * here * size, -1), cells.rows, token)


def _exchanged(array: Array, layout: Layout) -> Array:
    """Each device's part for the others, in the others' order."""
    return jax.lax.all_to_all(array, axis_of(layout.owners), split_axis=0, concat_axis=0, tiled=True)
