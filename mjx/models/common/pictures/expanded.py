"""Rows of text in which pictures have marks → rows in which they have room: on the host, with NumPy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mjx.errors import InputError


class Expanded(NamedTuple):
    """Rows in which every mark of a picture has become the places of its features."""

    tokens: Int[np.ndarray, "batch sequence"]
    labels: Int[np.ndarray, "batch sequence"]
    loss_mask: Float[np.ndarray, "batch sequence"]
    lengths: Int[np.ndarray, " batch"]
    """What stands behind them is padding."""


def expanded(
    tokens: Int[np.ndarray, "batch short"],
    labels: Int[np.ndarray, "batch short"],
    loss_mask: Float[np.ndarray, "batch short"],
    places: Sequence[Sequence[int]],
    *,
    mark: int,
    image_token: int,
) -> Expanded:
    """Make room for the features of pictures, as Megatron-Core's LLaVA does.

    A label is that of the next token of the longer row. Neither the places of features count, nor the token
    in front of them: nobody has to tell that a picture comes.

    Args:
        tokens: In which a `mark` stands for each picture.
        labels: The next token of each.
        loss_mask: 1 for tokens that count.
        places: How many features each picture of a row has.
        mark: Such as Megatron's -200.
        image_token: What stands in the places.

    Raises:
        InputError: a row has not as many marks as pictures.
    """
    widths = np.ones(tokens.shape, np.int64)
    for row, of_row in enumerate(places):
        marks = np.flatnonzero(tokens[row] == mark)
        if len(marks) != len(of_row):
            raise InputError(
                f"row {row} has {len(marks)} marks for pictures, and {len(of_row)} pictures; it needs "
                "one for each"
            )
        widths[row, marks] = of_row
    ends = np.cumsum(widths, axis=1)
    lengths, shape = ends[:, -1], (len(tokens), int(ends[:, -1].max()))
    made = Expanded(
        np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.float32), lengths
    )
    for row, length in enumerate(lengths):
        is_text = tokens[row] != mark
        source = np.repeat(np.arange(tokens.shape[1]), widths[row])
        text = is_text[source]
        made.tokens[row, :length] = np.where(text, tokens[row][source], image_token)
        follows = np.append(text[1:], True)
        made.labels[row, :length] = np.where(follows, labels[row][np.append(source[1:] - 1, -1)], 0)
        made.loss_mask[row, :length] = loss_mask[row][source] * text * follows
    return made
