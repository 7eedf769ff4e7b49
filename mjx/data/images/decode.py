"""A file's content → a picture with eight bits a channel, whatever it was written as."""

import contextlib
import functools
import io
import warnings
from typing import TYPE_CHECKING, Any

from mjx.data.tokenizers.protocol import optional_package

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES: tuple[str, ...] = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
)
"""Of files that are pictures. Capitals do not matter."""


class BrokenPictureError(Exception):
    """The content is no picture that can be read; the text says why."""


@functools.cache
def pillow() -> Any:
    """`PIL.Image`.

    Raises:
        InputError: Pillow is not installed.
    """
    module = optional_package("PIL.Image", "data of pictures", extra="images")
    warnings.simplefilter("ignore", module.DecompressionBombWarning)  # such pictures are refused here
    return module


def decoded(content: bytes, channels: int = 3) -> "Image":
    """The picture as it is meant to be seen: turned as its EXIF data says, on white where it is transparent,
    the first where there are several.

    Args:
        content: Of a file.
        channels: 3: red, green and blue; 1: grey.

    Raises:
        BrokenPictureError: it is no picture, is cut off, has no pixels, or more than Pillow takes for an
            attack (`PIL.Image.MAX_IMAGE_PIXELS`).
        InputError: Pillow is not installed.
    """
    image_module = pillow()
    if not content:
        raise BrokenPictureError("the file is empty")
    try:
        picture = image_module.open(io.BytesIO(content))
    except image_module.UnidentifiedImageError as error:
        raise BrokenPictureError("not a picture of a known kind") from error
    except image_module.DecompressionBombError as error:
        raise BrokenPictureError(f"too many pixels ({error})") from error
    except Exception as error:  # decoders of broken headers raise whatever befalls them
        raise BrokenPictureError(f"not readable ({error})") from error
    width, height = picture.size
    if not width * height:
        raise BrokenPictureError(f"{width} × {height} pixels are none")
    most = image_module.MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise BrokenPictureError(f"{width} × {height} pixels are more than {most}")
    try:
        picture.load()
        return _as_seen(picture, channels)
    except Exception as error:  # and so do those of broken contents
        raise BrokenPictureError(f"not readable ({error})") from error


def _as_seen(picture: "Image", channels: int) -> "Image":
    from PIL import Image, ImageOps

    with contextlib.suppress(Exception):  # EXIF data that mean nothing turn nothing
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "F":
        raise BrokenPictureError("pixels that are fractions have no known range")
    if picture.mode.startswith("I"):  # 16 bits
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if picture.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture).convert("RGB")
    wanted = "L" if channels == 1 else "RGB"
    return picture if picture.mode == wanted else picture.convert(wanted)
