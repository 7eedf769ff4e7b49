"""Pictures are prepared as transformers' image processors prepare them."""

import json

import numpy as np
import pytest

from mjx.data.images.processor import preparation_of
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
