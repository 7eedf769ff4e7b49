"""A picture → tiles of one size, beside the whole picture made small."""

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from mjx.data.images.prepare import PreparationConfig, resized
from mjx.errors import InputError
from mjx.models.common.pictures import Tiles, best_resolution

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tiling:
    image: PreparationConfig
    """How a tile becomes an array."""

    @property
    def channels(self) -> int:
        """Of the pictures that it takes."""
        return self.image.channels

    def _tiles(self, parts: list["Image"], picture: "Image") -> Tiles:
        return Tiles(np.stack([self.image(part) for part in parts]), (picture.height, picture.width))

    def _cut(self, picture: "Image") -> list["Image"]:
        """The tiles of a picture that they fill, row by row."""
        height, width = self.image.size
        return [
            picture.crop((left, top, left + width, top + height))
            for top in range(0, picture.height, height)
            for left in range(0, picture.width, width)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PinpointTiling(_Tiling):
    """A picture keeps its shape: it is fitted into the best of some sizes, black around it, and cut into
    tiles, in front of which stands the whole, squeezed to one (LLaVA-NeXT)."""

    pinpoints: tuple[tuple[int, int], ...]
    """Heights and widths in pixels, multiples of a tile's."""

    def __post_init__(self) -> None:
        height, width = self.image.size
        for high, wide in self.pinpoints:
            if high < height or wide < width or high % height or wide % width:
                raise InputError(
                    f"pinpoints have [{high}, {wide}], which is not a number of tiles of {height} × {width} "
                    "pixels in each direction"
                )
        if not self.pinpoints:
            raise InputError("pinpoints = [] leaves no size for a picture; name one, such as [672, 672]")

    def __call__(self, picture: "Image") -> Tiles:
        """The whole, and its tiles row by row."""
        from PIL import Image

        height, width = best_resolution((picture.height, picture.width), self.pinpoints)
        by_width, by_height = width / picture.width, height / picture.height
        if by_width < by_height:
            fitted = width, min(math.ceil(picture.height * by_width), height)
        else:
            fitted = min(math.ceil(picture.width * by_height), width), height
        inner = resized(picture, *fitted, self.image.resample)
        around = Image.new(inner.mode, (width, height))
        around.paste(inner, ((width - inner.width) // 2, (height - inner.height) // 2))
        whole = resized(picture, self.image.size[1], self.image.size[0], self.image.resample)
        return self._tiles([whole, *self._cut(around)], picture)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CanvasTiling(_Tiling):
    """A picture is squeezed to that many rows and columns of tiles whose shape is nearest to its own; where
    they are more than one, the whole, squeezed to one, stands behind them (InternVL, NVLM)."""

    fewest: int = 1
    """Tiles of a picture, without the whole."""
    most: int = 12
    """Tiles of a picture, without the whole."""

    def __post_init__(self) -> None:
        if not 1 <= self.fewest <= self.most:
            raise InputError(
                f"fewest = {self.fewest} and most = {self.most} are numbers of tiles: positive, and the "
                "latter not less"
            )

    def __call__(self, picture: "Image") -> Tiles:
        """The tiles row by row, and the whole."""
        height, width = self.image.size
        columns, rows = self._grid(picture)
        squeezed = resized(picture, width * columns, height * rows, self.image.resample)
        tiles = self._cut(squeezed)
        if len(tiles) > 1:
            tiles.append(resized(picture, width, height, self.image.resample))
        return self._tiles(tiles, picture)

    def _grid(self, picture: "Image") -> tuple[int, int]:
        """Columns and rows. Of several as near, the largest that is less than twice the picture's area."""
        shape, area = picture.width / picture.height, picture.width * picture.height
        found, least = (1, 1), math.inf
        for columns, rows in _canvases(self.fewest, self.most):
            far = abs(shape - columns / rows)
            enough = area > 0.5 * self.image.size[0] * self.image.size[1] * columns * rows
            if far < least or (far == least and enough):
                found, least = (columns, rows), far
        return found


@functools.cache
def _canvases(fewest: int, most: int) -> tuple[tuple[int, int], ...]:
    """Columns and rows of at least and at most so many tiles, the fewest first."""
    sides = range(1, most + 1)
    fitting = [(columns, rows) for columns in sides for rows in sides if fewest <= columns * rows <= most]
    return tuple(sorted(fitting, key=lambda canvas: canvas[0] * canvas[1]))
