"""Learned positions of patches: a table for pictures of one size, and what others take of it."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from mjx.models.common.pictures import Resizing, resizing

View = Literal["whole", "square", "aspect"]
"""What of a square table a picture takes that is no square: all of it, stretched; what it would cover as the
upper left part of a square that is as large as its longer side; or the upper left part that has its shape,
stretched (the last two: RADIO, Ranzinger et al. 2024)."""

_LEAST_CROP = 0.1
"""Of the table's area."""
_WIDEST = 4 / 3
"""Width of a crop in heights, and the other way round."""


class PositionTable(NamedTuple):
    """Rows and columns of positions that are learned, and how they meet pictures of other sizes."""

    rows: int
    columns: int
    resizing: Resizing
    view: View


def weights(
    table: PositionTable, grid: Int[Array, "*batch 4"]
) -> tuple[Float[Array, "*batch rows"], Float[Array, "*batch columns"]]:
    """How much of each row, and each column, of the table a patch's position is made of."""
    known = (table.rows, table.columns)
    place, size = jnp.maximum(grid[..., :2], 0), jnp.asarray(grid[..., 2:])
    covered: list[Array | None] = [None, None]
    if table.view == "square":
        size = jnp.broadcast_to(jnp.max(size, axis=-1, keepdims=True), size.shape)
    elif table.view == "aspect":
        longer = jnp.maximum(jnp.max(size, axis=-1, keepdims=True), 1)
        part = -(-size * jnp.array(known) // longer)  # in whole numbers, rounded up
        covered = [jnp.minimum(part[..., axis], known[axis]) for axis in range(2)]
    of_rows, of_columns = (
        resizing(place[..., axis], size[..., axis], known[axis], table.resizing, covered[axis])
        for axis in range(2)
    )
    return of_rows, of_columns


def cropped_weights(
    table: PositionTable,
    grid: Int[Array, "batch sequence 4"],
    segment_ids: Int[Array, "batch sequence"] | None,
    key: Key[Array, ""],
) -> tuple[Float[Array, "batch sequence rows"], Float[Array, "batch sequence columns"]]:
    """As `weights`, of a part of the table that is drawn for each picture: a tenth of its area to all of it,
    from 3:4 to 4:3, so that positions are learned at every scale.

    Args:
        table: Of the model.
        grid: Where patches are.
        segment_ids: Which picture of the row they are of; None: each row is one.
        key: Of the draw.
    """
    rows, sequence = np.broadcast_shapes(grid.shape[:2], (1, 1) if segment_ids is None else segment_ids.shape)
    pictures = 1 if segment_ids is None else sequence + 1
    of_scale, of_shape, of_place = jax.random.split(key, 3)
    scale = jax.random.uniform(of_scale, (rows, pictures), minval=_LEAST_CROP**0.5, maxval=1.0)
    shape = jax.random.uniform(of_shape, (rows, pictures), minval=-1.0, maxval=1.0)
    shape = jnp.exp(shape * np.log(_WIDEST))
    extent = jnp.clip(jnp.stack([scale / shape, scale * shape], axis=-1), 0.0, 1.0)
    first = jax.random.uniform(of_place, (rows, pictures, 2)) * (1 - extent)
    if segment_ids is not None:
        extent, first = (jnp.take_along_axis(x, segment_ids[..., None], axis=1) for x in (extent, first))
    place, size = jnp.maximum(grid[..., :2], 0), grid[..., 2:]
    share = place / jnp.maximum(size - 1, 1)
    at = (share * extent + first) * jnp.array([table.rows - 1, table.columns - 1])
    of_rows, of_columns = (
        jnp.maximum(1 - jnp.abs(jnp.arange(known) - at[..., axis, None]), 0)
        for axis, known in enumerate((table.rows, table.columns))
    )
    return of_rows, of_columns
