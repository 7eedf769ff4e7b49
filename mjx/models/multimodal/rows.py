"""Rows of text in which pictures stand, as a model reads them: on the host, with NumPy."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mjx.errors import InputError
from mjx.models.common.pictures import GRID, Picture, View, parts_of, patches_of, whole_grid
from mjx.models.multimodal.config import MultimodalConfig
from mjx.models.multimodal.layout import Layout, layout_of


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


def seen_arrays(
    config: MultimodalConfig,
    tokens: Int[np.ndarray, "batch sequence"],
    pictures: Sequence[Sequence[View]],
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
    layouts = [[layout_of(config, view) for view in row] for row in pictures]
    blocks = [_blocks(config, row, of_row) for row, of_row in zip(pictures, layouts, strict=True)]
    needed = max([sum(len(block.segments) for block in row) for row in blocks], default=0)
    width = max(needed, config.merged) if width is None else width
    if needed > width:
        raise InputError(f"the pictures of a row have {needed} patches, which are more than {width}")
    shape, beyond = (len(tokens), width), tokens.shape[1]
    arrays = {
        "patches": np.zeros((*shape, config.vision.patch_features), np.float32),
        "grid": np.zeros((*shape, GRID), np.int32),
        "patch_segment_ids": np.zeros(shape, np.int32),
        "image_at": np.full((shape[0], width // config.merged), beyond, np.int32),
    }
    if config.pinpoints:
        arrays["newline_at"] = np.full((shape[0], config.newlines(width)), beyond, np.int32)
    for row, (of_row, laid) in enumerate(zip(blocks, layouts, strict=True)):
        places = np.append(np.flatnonzero(tokens[row] == config.image_token), beyond)
        made = sum(sum(layout.counts) for layout in laid)
        if len(places) - 1 != made:
            raise InputError(
                f"row {row} has {len(places) - 1} tokens {config.image_token} (model.image_token) for {made} "
                f"features of {len(laid)} pictures; it needs one for each"
            )
        start = 0
        for block in of_row:
            here = slice(start, start := start + len(block.segments))
            arrays["patches"][row, here], arrays["grid"][row, here] = block.patches, block.grid
            arrays["patch_segment_ids"][row, here] = block.segments
            made_here = slice(here.start // config.merged, here.stop // config.merged)
            arrays["image_at"][row, made_here] = places[block.at]
        starts = np.cumsum([0, *(sum(layout.counts) for layout in laid)])
        lines = [layout.newlines + first for layout, first in zip(laid, starts[:-1], strict=True)]
        if config.pinpoints and lines:
            found = np.concatenate(lines)
            arrays["newline_at"][row, : len(found)] = places[found]
    return arrays


class _Block(NamedTuple):
    """One picture of the encoder in its row."""

    patches: Float[np.ndarray, "tokens pixels"]
    grid: Int[np.ndarray, "tokens grid"]
    segments: Int[np.ndarray, " tokens"]
    at: Int[np.ndarray, " made"]
    """Which of the row's image tokens each feature takes the place of; -1: of none."""


def _blocks(config: MultimodalConfig, row: Sequence[View], layouts: Sequence[Layout]) -> list[_Block]:
    """The pictures of the encoder of one row."""
    blocks, first = [], 0
    for view, layout in zip(row, layouts, strict=True):
        for part, places in zip(parts_of(view), layout.features, strict=True):
            at = np.where(places < 0, -1, places + first)
            blocks.append(_block(config, part, at, len(blocks) + 1))
        first += sum(layout.counts)
    return blocks


def _block(config: MultimodalConfig, picture: Picture, at: Int[np.ndarray, " made"], number: int) -> _Block:
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
    unseen = len(segments) // merged - len(at)
    return _Block(
        np.pad(patches, ((front + learned, 0), (0, 0))),
        np.pad(grid, ((front, 0), (0, 0))),
        segments,
        np.pad(at, (unseen, 0), constant_values=-1),
    )
