"""Pictures that an encoder sees about as large as they are (Wang et al. 2024, section 2.1)."""

import dataclasses
import math
from typing import TYPE_CHECKING

from mjx.data.images.decode import BrokenPictureError
from mjx.data.images.prepare import PreparationConfig
from mjx.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

    from mjx.models.common.pictures import Picture

_LONGEST = 200
"""Sides of a picture that is so many times as long as it is wide have no sizes that keep its shape."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NativeSize:
    """A `PictureProcessor`: sides are rounded to a multiple of `unit` pixels; a picture with too few or too
    many of them is made larger or smaller first."""

    image: PreparationConfig
    """How pixels become numbers; its `size` is not asked for."""
    unit: int
    """Pixels of a side that become one token."""
    fewest: int
    """Pixels of a picture."""
    most: int
    """Pixels of a picture."""

    def __post_init__(self) -> None:
        if self.unit < 1 or not 0 < self.fewest <= self.most:
            raise InputError(
                f"unit = {self.unit}, fewest = {self.fewest} and most = {self.most} pixels must be positive, "
                "and the most not fewer than the fewest."
            )

    @property
    def channels(self) -> int:
        """As the picture's."""
        return self.image.channels

    def size(self, height: int, width: int) -> tuple[int, int]:
        """The height and width that a picture of this size is seen at.

        Raises:
            BrokenPictureError: it is too long.
        """
        if max(height, width) > _LONGEST * min(height, width):
            raise BrokenPictureError(f"{width} × {height} pixels are more than {_LONGEST} to one")
        unit = self.unit
        found = round(height / unit) * unit, round(width / unit) * unit
        if found[0] * found[1] > self.most:
            shrink = math.sqrt(height * width / self.most)
            return (
                max(unit, math.floor(height / shrink / unit) * unit),
                max(unit, math.floor(width / shrink / unit) * unit),
            )
        if found[0] * found[1] < self.fewest:
            grow = math.sqrt(self.fewest / (height * width))
            return math.ceil(height * grow / unit) * unit, math.ceil(width * grow / unit) * unit
        return found

    def __call__(self, picture: "Image") -> "Picture":
        """The array of a decoded picture."""
        size = self.size(picture.height, picture.width)
        return dataclasses.replace(self.image, size=size, shorter_side=None)(picture)
