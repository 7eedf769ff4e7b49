"""Pictures are prepared as transformers' image processors prepare them."""

import json

import numpy as np
import pytest

from mjx.data.images.decode import BrokenPictureError
from mjx.data.images.marks import TILE_TAGS, PictureMarks
from mjx.data.images.prepare import PreparationConfig
from mjx.data.images.processor import preparation_of, processor_of
from mjx.data.images.tiling import CanvasTiling
from mjx.errors import InputError

Image = pytest.importorskip("PIL.Image")

PICTURES = [(57, 91), (91, 57), (40, 40), (31, 64), (400, 33)]
"""Widths and heights."""


def noise(width, height):
    """With large features, so that sizes and crops show."""
    small = np.random.default_rng(width).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("processor", "settings"),
    [
        ("ViTImageProcessorPil", {"size": {"height": 32, "width": 32}}),
        ("ViTImageProcessorPil", {"size": {"height": 24, "width": 40}, "rescale_factor": 2 / 255}),
        ("CLIPImageProcessorPil", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
        ("SiglipImageProcessorPil", {"size": {"height": 48, "width": 48}}),
        ("BitImageProcessorPil", {"size": {"shortest_edge": 37}, "crop_size": {"height": 33, "width": 32}}),
        ("BitImageProcessorPil", {"size": {"shortest_edge": 20}, "crop_size": {"height": 31, "width": 32}}),
        ("ViTImageProcessorPil", {"size": {"height": 32, "width": 32}, "do_normalize": False}),
    ],
)
def test_as_transformers_processors(processor, settings):
    theirs = getattr(pytest.importorskip("transformers"), processor)(**settings)
    ours = preparation_of(json.loads(theirs.to_json_string()), "preprocessor_config.json")
    for size in PICTURES:
        picture = noise(*size)
        expected = np.asarray(theirs(picture, return_tensors="np")["pixel_values"][0])
        np.testing.assert_allclose(ours(picture), expected, atol=1e-4)


def test_files_of_before_sizes_had_names():
    said = {"size": 224, "resample": 3, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    assert preparation_of(said, "x").size == (224, 224)
    cut = preparation_of(said | {"do_center_crop": True, "crop_size": 200}, "x")
    assert (cut.size, cut.shorter_side) == ((200, 200), 224)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size": {"shortest_edge": 32, "longest_edge": 64}}, '"size": '),
        ({"size": {"shortest_edge": 32}}, '"crop_size": None; where only the shorter side'),
        ({"do_center_crop": True, "crop_size": 16}, '"crop_size": 16; it should be as large as the size'),
        ({"resample": 5}, '"resample": 5; mjx knows 0'),
        ({"do_resize": False}, '"do_resize": False'),
        ({"image_std": [1, 1]}, '"image_std": '),
        ({"crop_pct": 0.9}, '"crop_pct": 0.9'),
    ],
)
def test_what_would_be_done_otherwise_is_refused(change, sentence):
    said = {
        **{"size": {"height": 32, "width": 32}, "resample": 3},
        **{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
    }
    assert preparation_of(said, "x").resample == "bicubic"
    with pytest.raises(InputError, match=sentence):
        preparation_of(said | change, "x")


PINPOINTS = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


@pytest.mark.parametrize(
    ("processor", "settings", "parts"),
    [
        (
            "LlavaNextImageProcessorPil",
            {**PINPOINTS, "image_grid_pinpoints": [[64, 32], [32, 64], [64, 64], [32, 96]]},
            {3, 4, 5},
        ),
        (
            "LlavaNextImageProcessorPil",
            {
                "size": {"height": 32, "width": 32},
                "crop_size": {"height": 32, "width": 32},
                "image_grid_pinpoints": [[64, 96]],
                "do_center_crop": False,
            },
            {7},
        ),
        ("GotOcr2ImageProcessorPil", {"size": {"height": 32, "width": 32}, "crop_to_patches": True}, None),
        (
            "GotOcr2ImageProcessorPil",
            {
                "size": {"height": 24, "width": 32},
                "crop_to_patches": True,
                "min_patches": 2,
                "max_patches": 5,
            },
            None,
        ),
    ],
)
def test_pictures_are_cut_as_transformers_cuts_them(processor, settings, parts):
    theirs = getattr(pytest.importorskip("transformers"), processor)(**settings)
    ours = processor_of(json.loads(theirs.to_json_string()), "preprocessor_config.json")
    seen = set()
    for size in [*PICTURES, (64, 64), (20, 20), (100, 99)]:
        picture = noise(*size)
        expected = theirs(picture, return_tensors="np")
        pixels = np.asarray(expected["pixel_values"])
        found = ours(picture)
        np.testing.assert_allclose(found.pictures, pixels[0] if pixels.ndim == 5 else pixels, atol=1e-4)
        assert found.size == (size[1], size[0])
        seen.add(len(found.pictures))
    assert seen >= parts if parts else len(seen) > 2


@pytest.mark.parametrize(
    "settings",
    [
        {"do_pad": True, "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        {"do_pad": False, "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    ],
)
def test_a_square_is_made_on_the_colour_of_the_mean(settings):
    theirs = pytest.importorskip("transformers").LlavaImageProcessorPil(**settings)
    ours = processor_of(json.loads(theirs.to_json_string()), "preprocessor_config.json")
    for size in PICTURES:
        expected = np.asarray(theirs(noise(*size), return_tensors="np")["pixel_values"][0])
        np.testing.assert_allclose(ours(noise(*size)), expected, atol=1e-4)


def test_internvl_cuts_whatever_its_file_says():
    said = {
        **{"image_processor_type": "GotOcr2ImageProcessorFast", "crop_to_patches": False, "resample": 3},
        **{"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    }
    assert isinstance(processor_of(said, "x"), PreparationConfig)
    assert isinstance(processor_of(said | {"processor_class": "InternVLProcessor"}, "x"), CanvasTiling)


def test_marks_become_places_with_tags_between_those_of_tiles():
    marks = PictureMarks(image="<ctx>", before="<img>", behind="</img>", tags=TILE_TAGS["two digits"])
    assert marks.number("a <image>b<ctx>") == 2
    assert marks.written("a <image>b<ctx>", [[2], [1, 3, 2]]) == (
        "a <img><tile_global_thumbnail><ctx><ctx></img>b"
        "<img><tile_01><ctx><tile_02><ctx><ctx><ctx><tile_global_thumbnail><ctx><ctx></img>"
    )
    with pytest.raises(InputError, match="1 marks <image> for 2 pictures"):
        marks.written("<image>", [[2], [2]])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": {"shortest_edge": 64 * 64, "longest_edge": 96 * 96}, "patch_size": 4},
        {"min_pixels": 3000, "max_pixels": 6000, "patch_size": 7, "merge_size": 1},
    ],
)
def test_pictures_of_their_own_size_are_as_transformers(settings):
    theirs = pytest.importorskip("transformers").Qwen2VLImageProcessorPil(**settings)
    ours = processor_of(json.loads(theirs.to_json_string()), "preprocessor_config.json")
    side, merged = theirs.patch_size, theirs.merge_size
    for size in PICTURES:
        picture = noise(*size)
        expected = theirs(picture, return_tensors="np")
        _, rows, columns = expected["image_grid_thw"][0].tolist()
        found = np.asarray(ours(picture))
        assert found.shape == (3, rows * side, columns * side)
        shape = (3, rows // merged, merged, side, columns // merged, merged, side)
        patches = found.reshape(shape).transpose(1, 4, 2, 5, 0, 3, 6).reshape(rows * columns, 3, 1, -1)
        flat = np.repeat(patches, 2, axis=2).reshape(rows * columns, -1)
        np.testing.assert_allclose(flat, expected["pixel_values"], atol=1e-4)


def test_a_picture_that_is_a_line_is_broken():
    said = {"image_processor_type": "Qwen2VLImageProcessor", "do_normalize": False}
    with pytest.raises(BrokenPictureError, match="more than 200 to one"):
        processor_of(said, "x")(noise(500, 2))
