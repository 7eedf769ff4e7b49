"""Rows of many lengths in batches of few shapes: what a model makes of each is a program per shape."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from mjx.sharding import Rules

_LEAST = 16
"""Tokens of the narrowest batch."""


class RowBatch(NamedTuple):
    """Some rows, and the shape that they are read in."""

    rows: Int[np.ndarray, "rows"]
    """Their numbers; fewer than `height` at the end."""
    height: int
    width: int


def row_batches(
    lengths: Sequence[int], height: int, *, multiples: tuple[int, int] = (1, 1), longest: int | None = None
) -> Iterator[RowBatch]:
    """All rows, sorted by length, the longest first; widths are two to the n, and half of that more.

    Args:
        lengths: Of the rows.
        height: Rows of a batch.
        multiples: What the mesh divides rows and tokens by (`mesh_multiples`).
        longest: Tokens that the model takes; no batch is wider, but where the mesh asks for it.
    """
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    height = -(-height // multiples[0]) * multiples[0]
    for begin in range(0, len(order), height):
        rows = order[begin : begin + height]
        width = _width(int(lengths[rows[0]]))
        width = width if longest is None else min(width, longest)
        yield RowBatch(rows, height, -(-width // multiples[1]) * multiples[1])


def mesh_multiples(mesh: Mesh, rules: Rules) -> tuple[int, int]:
    """What rows and tokens have to be multiples of on a mesh."""

    def over(name: str) -> int:
        return math.prod(mesh.shape[axis] for axis in rules.mesh_axes(name))

    return over("batch"), math.lcm(over("sequence"), over("residual_sequence"))


def padded(arrays: Mapping[str, np.ndarray], height: int) -> dict[str, np.ndarray]:
    """With rows of zeros behind."""
    return {
        name: np.pad(array, ((0, height - len(array)), *[(0, 0)] * (array.ndim - 1)))
        for name, array in arrays.items()
    }


def _width(length: int) -> int:
    power = _LEAST
    while power < length:
        power *= 2
    return power * 3 // 4 if power > _LEAST and length <= power * 3 // 4 else power
