"""Rows of text in which pictures stand, as a model reads them: on the host, with NumPy."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mjx.errors import InputError
from mjx.models.common.pictures import GRID, patches_of, whole_grid
from mjx.models.multimodal.config import MultimodalConfig

Picture = Float[np.ndarray, "channels height width"]


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


def reading_order(rows: int, columns: int, merged: int) -> Int[np.ndarray, " patches"]:
    """Which patch comes next: row by row, or, where several become one token, square by square and row by
    row in each (InternVL's second pixel shuffle; Qwen2-VL's merger).

    Raises:
        InputError: the squares do not fill the picture.
    """
    side = math.isqrt(merged)
    if side * side != merged or rows % side or columns % side:
        raise InputError(
            f"model.merged = {merged} makes no squares of a picture of {rows} × {columns} patches; choose "
            "the square of a number that divides both"
        )
    order = np.arange(rows * columns).reshape(rows // side, side, columns // side, side)
    return order.transpose(0, 2, 1, 3).ravel()


def features_of(config: MultimodalConfig, picture: Picture) -> int:
    """How many places the features of a picture take."""
    patch = config.vision.patch_size
    patches = picture.shape[1] // patch * (picture.shape[2] // patch)
    return patches // config.merged + (config.vision.learned_tokens if config.learned_seen else 0)


def seen_arrays(
    config: MultimodalConfig,
    tokens: Int[np.ndarray, "batch sequence"],
    pictures: Sequence[Sequence[Picture]],
    width: int | None = None,
) -> dict[str, np.ndarray]:
    """The arrays `SEEN` and `image_at` of rows whose `image_token`s are the places of their pictures'
    features.

    Args:
        config: Of the model.
        tokens: Of the rows.
        pictures: Of each row, in the order of its text.
        width: Tokens of a row of the encoder; None: as many as the fullest needs.

    Raises:
        InputError: a row has not as many places as features, or its pictures do not fit `width`.
    """
    blocks = [[_block(config, picture, at + 1) for at, picture in enumerate(row)] for row in pictures]
    needed = max([sum(len(block.segments) for block in row) for row in blocks], default=0)
    width = max(needed, config.merged) if width is None else width
    if needed > width:
        raise InputError(f"the pictures of a row have {needed} patches, which are more than {width}")
    shape = (len(tokens), width)
    arrays = {
        "patches": np.zeros((*shape, config.vision.patch_features), np.float32),
        "grid": np.zeros((*shape, GRID), np.int32),
        "patch_segment_ids": np.zeros(shape, np.int32),
        "image_at": np.full((shape[0], width // config.merged), tokens.shape[1], np.int32),
    }
    for row, of_row in enumerate(blocks):
        places = np.flatnonzero(tokens[row] == config.image_token)
        made = sum(int(block.kept.sum()) for block in of_row)
        if len(places) != made:
            raise InputError(
                f"row {row} has {len(places)} tokens {config.image_token} (model.image_token) for {made} "
                f"features of {len(of_row)} pictures; it needs one for each"
            )
        start = taken = 0
        for block in of_row:
            here = slice(start, start := start + len(block.segments))
            arrays["patches"][row, here], arrays["grid"][row, here] = block.patches, block.grid
            arrays["patch_segment_ids"][row, here] = block.segments
            at = np.flatnonzero(block.kept) + here.start // config.merged
            arrays["image_at"][row, at] = places[taken : (taken := taken + len(at))]
    return arrays


class _Block(NamedTuple):
    """One picture in a row of the encoder."""

    patches: Float[np.ndarray, "tokens pixels"]
    grid: Int[np.ndarray, "tokens grid"]
    segments: Int[np.ndarray, " tokens"]
    kept: np.ndarray
    """Which of its features take a place."""


def _block(config: MultimodalConfig, picture: Picture, number: int) -> _Block:
    vision, merged = config.vision, config.merged
    patch, learned = vision.patch_size, vision.learned_tokens
    rows, columns = picture.shape[1] // patch, picture.shape[2] // patch
    order = reading_order(rows, columns, merged)
    patches = patches_of(picture[None], patch, vision.frames)[0][order]
    grid = whole_grid(rows, columns, learned)[0]
    grid = np.concatenate([grid[:learned], grid[learned:][order]])
    # Patches that become one token stand together, so that something stands in front of the learned ones.
    front = -learned % merged
    segments = np.pad(np.full(len(grid), number, np.int32), (front, 0))
    kept = np.arange(len(segments) // merged) >= (0 if config.learned_seen else (front + learned) // merged)
    return _Block(
        np.pad(patches, ((front + learned, 0), (0, 0))), np.pad(grid, ((front, 0), (0, 0))), segments, kept
    )
