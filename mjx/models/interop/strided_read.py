"""Part of an array in a file, read without the rest of it taking memory.

Not by memory mapping: its pages count as the process's own until the system wants them back, and a column
touches a page of each row, so that a slice of a tensor takes the memory of the whole.
"""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from mjx.models.interop.stored_file import fill

STAGE = 1 << 20
"""Bytes read at once where wanted ones lie scattered, to be picked out in memory."""

_LONG_RUN = 1 << 16
"""Bytes in a row that are worth a read of their own."""
_LONG_GAP = 1 << 16
"""Unwanted bytes that take as long to read as one more read does."""


def read_box(
    part: Shaped[np.ndarray, "..."],
    file: io.FileIO,
    begin: int,
    shape: Sequence[int],
    start: Sequence[int],
) -> None:
    """Fills `part`, not empty and in C order, from the array of shape `shape` at byte `begin` of the file.

    `start` is the index of the part's first item. Takes STAGE bytes of memory at most.
    """
    run, position, dimensions = _runs(part, begin, shape, start)
    inner = _staged(run, dimensions)
    outer = dimensions[: len(dimensions) - inner]
    raw = part.reshape(-1).view(f"u{part.itemsize}")
    blocks = raw.reshape(*(count for count, _ in dimensions), run // part.itemsize)
    for place in np.ndindex(*(count for count, _ in outer)):
        first = position + sum(i * stride for i, (_, stride) in zip(place, outer, strict=True))
        if inner:
            _read_scattered(blocks[place], file, first, [stride for _, stride in dimensions[len(outer) :]])
        else:
            fill(blocks[place].view(np.uint8).data, file, first)


def _runs(
    part: np.ndarray, begin: int, shape: Sequence[int], start: Sequence[int]
) -> tuple[int, int, list[tuple[int, int]]]:
    """The part as runs of contiguous bytes: their length, the first one's position in the file, and
    (count, stride in bytes) of as few dimensions of runs as possible, the outermost first."""
    run = stride = part.itemsize
    position = begin
    dimensions: list[tuple[int, int]] = []
    for count, extent, first in zip(reversed(part.shape), reversed(shape), reversed(start), strict=True):
        position += first * stride
        if count > 1:
            if not dimensions and stride == run:
                run *= count
            elif dimensions and stride == dimensions[0][0] * dimensions[0][1]:
                dimensions[0] = (count * dimensions[0][0], dimensions[0][1])
            else:
                dimensions.insert(0, (count, stride))
        stride *= extent
    return run, position, dimensions


def _staged(run: int, dimensions: Sequence[tuple[int, int]]) -> int:
    """How many of the inner dimensions are better read with the gaps between their runs than run by run."""
    if run >= _LONG_RUN:
        return 0
    cover = run
    for number, (count, stride) in enumerate(reversed(dimensions)):
        if stride - cover > _LONG_GAP or cover > STAGE:
            return number
        cover += (count - 1) * stride
    return len(dimensions)


def _read_scattered(block: np.ndarray, file: io.FileIO, position: int, strides: Sequence[int]) -> None:
    """Fills a block of runs, [..., run], from the file, where its dimensions have these strides in bytes."""
    row = block.shape[-1] * block.itemsize
    row += sum((count - 1) * stride for count, stride in zip(block.shape[1:-1], strides[1:], strict=True))
    at_once = min(max(1, STAGE // strides[0]), len(block))
    stage = memoryview(bytearray((at_once - 1) * strides[0] + row))
    for first in range(0, len(block), at_once):
        rows = block[first : first + at_once]
        fill(stage[: (len(rows) - 1) * strides[0] + row], file, position + first * strides[0])
        rows[...] = np.ndarray(rows.shape, rows.dtype, stage, strides=(*strides, block.itemsize))
