"""How the pictures of a Hugging Face model are prepared: its `preprocessor_config.json`."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mjx.data.images.marks import PictureMarks
from mjx.data.images.native_size import NativeSize
from mjx.data.images.prepare import PreparationConfig, Resample
from mjx.data.images.protocol import PictureProcessor
from mjx.data.images.tiling import CanvasTiling, PinpointTiling
from mjx.errors import InputError
from mjx.models.interop.stored_file import read_object

FILE = "preprocessor_config.json"
WHOLE_FILE = "processor_config.json"
"""Of newer folders: of the tokens around pictures too, and with the other inside, as `image_processor`."""
_RESAMPLE: dict[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""


def read_processor(folder: Path) -> PictureProcessor:
    """What a model's folder says of its pictures.

    Raises:
        InputError: it says nothing, or something that mjx does not do.
    """
    own, around = (_read(folder / name) for name in (FILE, WHOLE_FILE))
    inner = around.get("image_processor")
    said, where = (own, FILE) if own or not isinstance(inner, Mapping) else (inner, WHOLE_FILE)
    if not said:
        raise InputError(f"{folder} has no {FILE}, which says how pictures are made ready for the model")
    classes = [one.get("processor_class") for one in (around, own)]
    return processor_of({"processor_class": next(filter(None, classes), None), **said}, str(folder / where))


def read_marks(folder: Path, image: str) -> PictureMarks:
    """What a model's folder says of the text where a picture stands, whose features are in the places of the
    token `image`."""
    around, own = (_read(folder / name) for name in (WHOLE_FILE, FILE))
    around = {**own, **around}
    if around.get("processor_class") != "InternVLProcessor":
        return PictureMarks(image=image)
    tokens = _read(folder / "tokenizer_config.json")
    extra = tokens.get("extra_special_tokens")
    tokens |= extra if isinstance(extra, dict) else {}
    begin, end = (tokens.get(f"{name}_image_token") for name in ("start", "end"))
    if not isinstance(begin, str) or not isinstance(end, str):
        raise InputError(
            f'{folder / "tokenizer_config.json"} should say the "start_image_token" and the '
            '"end_image_token" around a picture'
        )
    return PictureMarks(image=image, before=begin, behind=end)


def _read(file: Path) -> dict[str, Any]:
    return dict(read_object(file)) if os.path.lexists(file) else {}


def processor_of(said: Mapping[str, Any], where: str) -> PictureProcessor:
    """What an image processor of transformers does to a picture.

    Args:
        said: The file's content.
        where: The file, for messages.

    Raises:
        InputError: as `preparation_of`.
    """
    kind = str(said.get("image_processor_type", "")).removesuffix("Fast").removesuffix("Pil")
    return _KINDS.get(kind, preparation_of)(said, where)


def _llava(said: Mapping[str, Any], where: str) -> PictureProcessor:
    padded = said.get("do_pad", False)
    return dataclasses.replace(preparation_of({**said, "do_pad": False}, where), squared=bool(padded))


def _pinpoints(said: Mapping[str, Any], where: str) -> PictureProcessor:
    whole = preparation_of({**said, "do_pad": False}, where)  # of a batch, with pictures of nothing
    found = said.get("image_grid_pinpoints")
    sizes = [_pair(one) for one in found] if isinstance(found, list) else []
    pinpoints = tuple(size for size in sizes if size is not None)
    if not pinpoints or len(pinpoints) < len(sizes):
        raise InputError(
            f'{where} has "image_grid_pinpoints": {found!r}; it should be a list of heights and widths'
        )
    cut = _sides(said.get("crop_size"), square=True) or whole.size  # cuts tiles, even where it crops nothing
    sides = {*whole.size, *(cut if isinstance(cut, tuple) else (cut,)), whole.shorter_side or whole.size[0]}
    if len(sides) > 1:
        raise InputError(
            f'{where} has "crop_size": {said.get("crop_size")!r}; it should be as large as the size'
        )
    return PinpointTiling(image=whole, pinpoints=pinpoints)


def _canvas(said: Mapping[str, Any], where: str) -> PictureProcessor:
    whole = preparation_of(said, where)
    # InternVL's processor cuts whatever its file says.
    cuts = said.get("processor_class") == "InternVLProcessor" or said.get("crop_to_patches", False)
    fewest, most = said.get("min_patches", 1), said.get("max_patches", 12)
    if not cuts or most == 1:
        return whole
    return CanvasTiling(image=whole, fewest=fewest, most=most)


def _native(said: Mapping[str, Any], where: str) -> PictureProcessor:
    size = said.get("size") if isinstance(said.get("size"), Mapping) else {}
    assert isinstance(size, Mapping)
    fewest = said.get("min_pixels") or size.get("shortest_edge") or 56 * 56
    most = said.get("max_pixels") or size.get("longest_edge") or 28 * 28 * 1280
    side, merged = said.get("patch_size") or 14, said.get("merge_size") or 2
    for name, number in (("patch_size", side), ("merge_size", merged), ("size", fewest), ("size", most)):
        if type(number) is not int or number < 1:
            raise InputError(f'{where} has "{name}": {said.get(name)!r}, which should be positive numbers')
    whole = preparation_of({"resample": 3, **said, "size": {"height": side, "width": side}}, where)
    return NativeSize(image=whole, unit=side * merged, fewest=fewest, most=most)


_KINDS: dict[str, Callable[[Mapping[str, Any], str], PictureProcessor]] = {
    "LlavaImageProcessor": _llava,
    "LlavaNextImageProcessor": _pinpoints,
    "GotOcr2ImageProcessor": _canvas,
    "Qwen2VLImageProcessor": _native,
}
"""By the name of transformers' class; others do what `preparation_of` says."""


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


def _pair(said: Any) -> tuple[int, int] | None:
    if isinstance(said, list | tuple) and len(said) == 2 and all(type(side) is int for side in said):
        return said[0], said[1]
    return None


def _three(said: Any) -> tuple[float, ...] | None:
    if isinstance(said, list) and len(said) == 3 and all(isinstance(one, int | float) for one in said):
        return tuple(map(float, said))
    return None
