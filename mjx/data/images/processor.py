"""How the pictures of a Hugging Face model are prepared: its `preprocessor_config.json`."""

from collections.abc import Mapping
from typing import Any

from mjx.data.images.prepare import PreparationConfig, Resample
from mjx.errors import InputError

FILE = "preprocessor_config.json"
_RESAMPLE: dict[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""


def preparation_of(said: Mapping[str, Any], where: str) -> PreparationConfig:
    """What the processors of ViT, CLIP, SigLIP, DINOv2 and their like do.

    Args:
        said: The file's content.
        where: The file, for messages.

    Raises:
        InputError: something is missing, or would be done otherwise than mjx does it.
    """

    def refuse(key: str, right: str) -> InputError:
        return InputError(f'{where} has "{key}": {said.get(key)!r}; {right}')

    crop = bool(said.get("do_center_crop", False))
    if not said.get("do_resize", True):
        raise refuse("do_resize", "mjx resizes pictures, so it should be true")
    if not said.get("do_rescale", True):
        raise refuse("do_rescale", "mjx takes pixels from 0 to 255, so it should be true")
    for key in ("do_pad", "do_reduce_labels", "do_flip_channel_order"):
        if said.get(key):
            raise refuse(key, "mjx does not do that")
    if said.get("crop_pct") is not None:
        raise refuse("crop_pct", "mjx does not do that")
    resample = _RESAMPLE.get(said.get("resample", -1))
    if resample is None:
        raise refuse("resample", f"mjx knows {', '.join(f'{n} ({name})' for n, name in _RESAMPLE.items())}")
    size = _sides(said.get("size"), square=not crop)
    if size is None:
        raise refuse("size", 'it should be {"height": …, "width": …} or {"shortest_edge": …}')
    shorter = None
    if isinstance(size, int):
        cut = _sides(said.get("crop_size"), square=True) if crop else None
        if not isinstance(cut, tuple):
            raise refuse(
                "crop_size",
                "where only the shorter side has a size, it should be that of a crop of the middle",
            )
        shorter, size = size, cut
    elif crop and _sides(said.get("crop_size"), square=True) != size:
        raise refuse("crop_size", f"it should be as large as the size, {list(size)}")
    # (x · factor − mean) / std of a pixel x, as the config says it of x / 255
    scale = 255 * said.get("rescale_factor", 1 / 255)
    mean, std = (0.0,) * 3, (1.0,) * 3
    if said.get("do_normalize", True):
        mean, std = (_three(said.get(key)) for key in ("image_mean", "image_std"))
        for key, found in (("image_mean", mean), ("image_std", std)):
            if found is None:
                raise refuse(key, "it should be three numbers")
    assert mean is not None
    assert std is not None
    return PreparationConfig(
        size=size,
        shorter_side=shorter,
        resample=resample,
        mean=tuple(one / scale for one in mean),
        std=tuple(one / scale for one in std),
    )


def _sides(said: Any, *, square: bool) -> tuple[int, int] | int | None:
    """Height and width; or one number, the shorter side; None: neither."""
    if type(said) is int and said > 0:
        return (said, said) if square else said
    if isinstance(said, dict):
        if type(said.get("height")) is int and type(said.get("width")) is int:
            return said["height"], said["width"]
        short = said.get("shortest_edge")
        if type(short) is int and said.get("longest_edge") is None:
            return short
    return None


def _three(said: Any) -> tuple[float, ...] | None:
    if isinstance(said, list) and len(said) == 3 and all(isinstance(one, int | float) for one in said):
        return tuple(map(float, said))
    return None
