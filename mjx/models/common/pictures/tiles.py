"""Pictures that an encoder sees in several: cut into tiles, beside the whole made small."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Picture = Float[np.ndarray, "channels height width"]


class Tiles(NamedTuple):
    """A picture of a text that is several pictures of an encoder."""

    pictures: Float[np.ndarray, "tiles channels height width"]
    size: tuple[int, int]
    """Height and width in pixels of the picture before it was made larger or smaller."""


View = Picture | Tiles
"""A picture as an encoder sees it: at once, or in tiles."""


def parts_of(view: View) -> Sequence[Picture]:
    """The pictures that the encoder sees, each apart from the others."""
    return list(view.pictures) if isinstance(view, Tiles) else [view]


def best_resolution(size: tuple[int, int], choices: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Of some heights and widths, that which keeps most of a picture's pixels, and then wastes the fewest of
    its own (Liu et al. 2024, LLaVA-NeXT)."""
    height, width = size

    def merit(choice: tuple[int, int]) -> tuple[int, int]:
        scale = min(choice[1] / width, choice[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - choice[0] * choice[1]

    return max(choices, key=merit)


def unpadded(size: tuple[int, int], around: tuple[int, int]) -> tuple[int, int]:
    """How much of a grid of `around` rows and columns, into whose middle a picture of `size` was fitted, is
    padding: rows above (and below), columns on the left (and right)."""
    (height, width), (rows, columns) = size, around
    if width / height > columns / rows:
        return (rows - int(round(height * (columns / width), 7))) // 2, 0
    return 0, (columns - int(round(width * (rows / height), 7))) // 2
