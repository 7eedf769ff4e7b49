"""In which order rows are read, and how long batches of them have to be."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

_BLOCKS = 16


def row_order(
    lengths: Int64[np.ndarray, "rows"], num_samples: int | None, seed: int, sort_rows: int = 0
) -> Int64[np.ndarray, "samples"]:
    """Sample id → row: all rows in a new order in every epoch; the same seed gives the same order.

    Args:
        lengths: Of the rows.
        num_samples: So many, over as many epochs as it takes; None: every row once.
        seed: Of the order.
        sort_rows: Among so many rows that would follow one another in an epoch, those of like length stand
            together: they are sorted, and cut into 16 blocks whose order is drawn.
    """
    random = np.random.RandomState(seed)
    epochs = 1 if num_samples is None else -(-num_samples // len(lengths))
    orders = []
    for _ in range(epochs):
        order = random.permutation(len(lengths))
        for begin in range(0, len(order), sort_rows) if sort_rows else ():
            window = order[begin : begin + sort_rows]
            blocks = np.array_split(window[np.argsort(lengths[window], kind="stable")], _BLOCKS)
            drawn = random.permutation(_BLOCKS)
            order[begin : begin + sort_rows] = np.concatenate([blocks[block] for block in drawn])
        orders.append(order)
    return np.concatenate(orders)[:num_samples]


def bucket_of(longest: int, buckets: Sequence[int], whole: int) -> int:
    """The first bucket that is as long as the longest row, else the whole."""
    return next((bucket for bucket in buckets if bucket >= longest), whole)


def fitted(
    first: Int64[np.ndarray, "rows"], second: Int64[np.ndarray, "rows"], room: int
) -> tuple[Int64[np.ndarray, "rows"], Int64[np.ndarray, "rows"]]:
    """How many tokens of two texts are kept, so that together they fit: the longer one is cut until they are
    equally long (but for one token, which it keeps), then both; as the tokenizers library cuts them."""
    longer, shorter = np.maximum(first, second), np.minimum(first, second)
    longer = np.minimum(longer, np.maximum(room - shorter, room - room // 2))
    shorter = np.minimum(shorter, room - longer)
    swap = first > second
    return np.where(swap, longer, shorter), np.where(swap, shorter, longer)
