"""Which place of a text each feature of a picture takes."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from mjx.errors import InputError
from mjx.models.common.pictures import Picture, Tiles, View, best_resolution, parts_of, unpadded
from mjx.models.multimodal.config import MultimodalConfig

_NONE = -1


class Layout(NamedTuple):
    """The places of one picture, counted from its first."""

    features: list[Int[np.ndarray, " features"]]
    """Of the features of each part, in the encoder's order; -1: of those that take none."""
    newlines: Int[np.ndarray, " lines"]
    """Of the learned embedding behind a row."""
    counts: tuple[int, ...]
    """How many places each part takes, or, where they are one grid, all of them."""


def layout_of(config: MultimodalConfig, view: View) -> Layout:
    """One part behind the other; or, with `model.pinpoints`, the first, and behind it all others as one grid
    without its padding, a newline behind each of its rows (LLaVA-NeXT).

    Raises:
        InputError: the tiles are not those of a pinpoint.
    """
    counts = [_features(config, part) for part in parts_of(view)]
    if not config.pinpoints:
        starts = np.cumsum([0, *counts])
        features = [np.arange(*pair) for pair in itertools.pairwise(starts)]
        return Layout(features, np.zeros(0, np.int64), tuple(counts))
    if not isinstance(view, Tiles):
        return Layout([np.arange(counts[0])], np.array(counts), (counts[0] + 1,))
    return _as_grid(config, view, counts[0])


def features_of(config: MultimodalConfig, view: View) -> int:
    """How many places a picture takes."""
    return sum(layout_of(config, view).counts)


def tiles_of(config: MultimodalConfig, size: tuple[int, int]) -> int:
    """How many pictures of the encoder one of this height and width is, by `model.pinpoints`."""
    height, width = best_resolution(size, config.pinpoints)
    high, wide = config.vision.image_size
    return 1 + -(-height // high) * -(-width // wide)


def _features(config: MultimodalConfig, picture: Picture) -> int:
    patch = config.vision.patch_size
    patches = picture.shape[1] // patch * (picture.shape[2] // patch)
    return patches // config.merged + (config.vision.learned_tokens if config.learned_seen else 0)


def _as_grid(config: MultimodalConfig, view: Tiles, first: int) -> Layout:
    patch, (high, wide) = config.vision.patch_size, view.pictures.shape[2:]
    best = best_resolution(view.size, config.pinpoints)
    above, across = best[0] // high, best[1] // wide
    if len(view.pictures) != 1 + above * across:
        raise InputError(
            f"a picture of {view.size[0]} × {view.size[1]} pixels is seen at {best[0]} × {best[1]} (of "
            f"model.pinpoints), which is {above * across} tiles of {high} × {wide} and the whole; it has "
            f"{len(view.pictures)} pictures"
        )
    rows, columns = high // patch, wide // patch
    around = above * rows, across * columns
    top, left = unpadded(view.size, around)
    kept, width = around[0] - 2 * top, around[1] - 2 * left
    grid = np.full(around, _NONE)
    lines = first + np.arange(kept) * (width + 1)
    grid[top : top + kept, left : left + width] = lines[:, None] + np.arange(width)
    tiles = grid.reshape(above, rows, across, columns).transpose(0, 2, 1, 3).reshape(above * across, -1)
    return Layout([np.arange(first), *tiles], lines + width, (first + kept * (width + 1),))
