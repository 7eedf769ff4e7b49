"""A picture → the numbers that a model sees: size, crop, chance in training, mean and deviation."""

import dataclasses
import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from mjx.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
"""Pillow's filters, which widen where a picture becomes smaller."""
Normalization = Literal["half", "imagenet", "clip"]
NORMALIZATIONS: dict[Normalization, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
"""Mean and standard deviation of channels between 0 and 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparationConfig:
    """How a picture becomes an array."""

    size: tuple[int, int] = (224, 224)
    """Height and width in pixels that the model sees."""
    shorter_side: int | None = None
    """Keep a picture's shape: make its shorter side so long, and take `size` out of the middle (what is
    beyond the picture is black). null: squeeze it to `size`."""
    squared: bool = False
    """First put what is not square into the middle of a square, on the colour of the mean (LLaVA)."""
    resample: Resample = "bicubic"
    """How it is made larger or smaller."""
    channels: int = 3
    """3: red, green and blue; 1: grey."""
    normalize: Normalization = "half"
    """By whose mean and standard deviation: those of ImageNet, of CLIP's pictures, or 0.5 and 0.5."""
    mean: tuple[float, ...] = ()
    """Of each channel (between 0 and 1), instead of those of `normalize`."""
    std: tuple[float, ...] = ()
    """Of each channel, instead of those of `normalize`."""

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise InputError(f"size = {list(self.size)} must be a height and a width in pixels.")
        if self.shorter_side is not None and self.shorter_side < 1:
            raise InputError(f"shorter_side = {self.shorter_side} must be positive, or null.")
        if self.channels not in (1, 3):
            raise InputError(f"channels = {self.channels} must be 3 (colours) or 1 (grey).")
        for name in ("mean", "std"):
            if getattr(self, name) and len(getattr(self, name)) != self.channels:
                raise InputError(
                    f"{name} = {list(getattr(self, name))} must be channels = {self.channels} numbers, or []."
                )
        if not all(math.isfinite(one) for one in self.mean) or not all(
            0 < one < math.inf for one in self.std
        ):
            raise InputError(
                f"mean = {list(self.mean)} and std = {list(self.std)} must be finite, and std positive."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return (self.channels, *self.size)

    def __call__(
        self, picture: "Image", augment: "AugmentationConfig | None" = None, seed: tuple[int, ...] = ()
    ) -> Float[np.ndarray, "channels height width"]:
        """The array of a decoded picture, of `channels`; with `augment` such as `seed` draws it."""
        if augment is not None:
            return self.normalized(augment(picture, self, np.random.default_rng(seed)))
        height, width = self.size
        picture = self._squared(picture) if self.squared else picture
        if self.shorter_side is None:
            return self.normalized(resized(picture, width, height, self.resample))
        short, long = sorted(picture.size)
        longer = int(self.shorter_side * long / short)
        sides = (
            (self.shorter_side, longer) if picture.width <= picture.height else (longer, self.shorter_side)
        )
        return self.normalized(_middle(resized(picture, *sides, self.resample), width, height))

    def normalized(self, picture: "Image") -> Float[np.ndarray, "channels height width"]:
        """What the mean makes 0 and the standard deviation 1, in float32."""
        mean, std = self._mean_and_std()
        pixels = np.asarray(picture, np.uint8).reshape(picture.height, picture.width, self.channels)
        scale = np.float32(1 / 255)
        return np.ascontiguousarray(((pixels * scale - mean) / std).transpose(2, 0, 1))

    def _squared(self, picture: "Image") -> "Image":
        from PIL import Image

        side = max(picture.size)
        color = tuple(int(mean * 255) for mean in self._mean_and_std()[0].astype(float))
        around = Image.new(picture.mode, (side, side), color if self.channels > 1 else color[0])
        around.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return around

    def _mean_and_std(self) -> tuple[np.ndarray, np.ndarray]:
        known = NORMALIZATIONS[self.normalize]
        mean, std = (
            np.asarray(own or (known if self.channels == 3 else (sum(known) / 3,)), np.float32)
            for own, known in zip((self.mean, self.std), known, strict=True)
        )
        return mean, std


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Chance in training: a part of the picture, squeezed to the size (Szegedy et al. 2015), and its mirror
    image."""

    scale: tuple[float, float] = (0.08, 1.0)
    """The least and the largest share of the picture's area that is kept."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """The least and the largest width of that part in heights."""
    flip: float = 0.5
    """How often left and right change places."""

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"scale = {list(self.scale)} must be two shares of an area, as [0.08, 1].")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise InputError(f"ratio = {list(self.ratio)} must be two positive numbers, the smaller first.")
        if not 0 <= self.flip <= 1:
            raise InputError(f"flip = {self.flip} must be from 0 to 1.")

    def __call__(self, picture: "Image", config: PreparationConfig, random: np.random.Generator) -> "Image":
        """A picture of the config's size."""
        from PIL import Image

        height, width = config.size
        part = picture.crop(self._part(picture.width, picture.height, random))
        part = resized(part, width, height, config.resample)
        if random.random() < self.flip:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return part

    def _part(self, width: int, height: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, right, bottom; the middle where ten draws do not fit into the picture."""
        for _ in range(10):
            area = width * height * random.uniform(self.scale[0], self.scale[1])
            ratio = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high <= height:
                left, top = (int(random.integers(room + 1)) for room in (width - wide, height - high))
                return left, top, left + wide, top + high
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        wide, high = max(1, min(width, round(height * ratio))), max(1, min(height, round(width / ratio)))
        left, top = (width - wide) // 2, (height - high) // 2
        return left, top, left + wide, top + high


def resized(picture: "Image", width: int, height: int, resample: Resample) -> "Image":
    """As Pillow does it."""
    from PIL import Image

    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), Image.Resampling[resample.upper()])


def _middle(picture: "Image", width: int, height: int) -> "Image":
    """Where the picture is smaller, black around it; an odd pixel is on its left and top."""
    left = (picture.width - width) // 2
    top = (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
