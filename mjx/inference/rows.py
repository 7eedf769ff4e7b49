"""Rows of different lengths in batches of few distinct shapes: little is compiled, and little is padding."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

NARROWEST = 8
"""Tokens by which widths differ at least; wider ones differ by an eighth to a quarter of themselves."""


def rounded(length: int, least: int) -> int:
    """Up to a multiple of `least`, or of an eighth to a quarter of itself where that is more.

    Few distinct sizes mean few compilations; little waste means little attention to empty slots.
    """
    step = max(least, 2 ** max(length.bit_length() - 3, 0))
    return -(-length // step) * step


class RowBatch(NamedTuple):
    """Some of the rows, padded on the right; rows without tokens only fill the batch."""

    tokens: Int[np.ndarray, "rows width"]
    lengths: Int[np.ndarray, " rows"]
    members: list[int]
    """Which of the rows these are."""


def batches_of_rows(
    rows: Sequence[Sequence[int]], batch_tokens: int, *, widest: int | None = None, multiple: int = 1
) -> Iterator[RowBatch]:
    """All rows once, the longest first, in batches of rows that are about as long.

    A batch of one width has always as many rows but for the last one, so that there are about as many
    shapes as widths.

    Args:
        rows: Of tokens.
        batch_tokens: Of a batch, padding included; one row may have more.
        widest: No batch is wider, as positions end there; None: they do not.
        multiple: Of which the number of rows of a batch has to be one.
    """
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    start = 0
    while start < len(order):
        width = rounded(max(len(rows[order[start]]), 1), NARROWEST)
        width = width if widest is None else min(width, widest)
        size = -(-max(batch_tokens // width, 1) // multiple) * multiple
        members = order[start : start + size]
        start += size
        if len(members) < size:
            size = min(size, -(-rounded(len(members), 1) // multiple) * multiple)
        tokens, lengths = np.zeros((size, width), np.int32), np.zeros(size, np.int32)
        for place, member in enumerate(members):
            lengths[place] = length = len(rows[member])
            tokens[place, :length] = rows[member]
        yield RowBatch(tokens, lengths, members)
