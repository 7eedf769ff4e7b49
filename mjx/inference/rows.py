"""Rows of different lengths in batches of few distinct shapes: little is compiled, and little is padding."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mjx.kernels.capability import current_device

BATCH_TOKENS = {"cpu": 2048}
"""Platform → tokens of a batch, padding included: a CPU is no faster with more."""
_OTHERWISE = 65536

NARROWEST = 8
"""Tokens by which widths differ at least; wider ones differ by an eighth to a quarter of themselves."""


def rounded(length: int, least: int) -> int:
    """Up to a multiple of `least`, or of an eighth to a quarter of itself where that is more.

    Few distinct sizes mean few compilations; little waste means little attention to empty slots.
    """
    step = max(least, 2 ** max(length.bit_length() - 3, 0))
    return -(-length // step) * step


class RowBatch(NamedTuple):
    """Some of the rows, and the shape that they are computed in: rows beyond them only fill the batch."""

    members: list[int]
    """Which of the rows these are."""
    rows: int
    width: int


def row_batches(
    lengths: Sequence[int], batch_tokens: int, *, widest: int | None = None, multiple: int = 1
) -> Iterator[RowBatch]:
    """All rows once, the longest first, in batches of rows that are about as long.

    A batch of one width has always as many rows but for the last one, so that there are about as many
    shapes as widths.

    Args:
        lengths: Of the rows, in tokens.
        batch_tokens: Of a batch, padding included; one row may have more.
        widest: No batch is wider, as positions end there; None: they do not.
        multiple: Of which the number of rows of a batch has to be one.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        width = rounded(max(lengths[order[start]], 1), NARROWEST)
        width = width if widest is None else min(width, widest)
        size = -(-max(batch_tokens // width, 1) // multiple) * multiple
        members = order[start : start + size]
        start += size
        if len(members) < size:
            size = min(size, -(-rounded(len(members), 1) // multiple) * multiple)
        yield RowBatch(members, size, width)


def batch_tokens_here() -> int:
    """Of a batch, padding included, that suit the device in force."""
    platform, _ = current_device()
    return BATCH_TOKENS.get(platform, _OTHERWISE)
