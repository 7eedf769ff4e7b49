"""Sizes, crops and chance."""

import numpy as np
import pytest

from mjx.data.images.prepare import AugmentationConfig, PreparationConfig
from mjx.errors import InputError

Image = pytest.importorskip("PIL.Image")


def ramp(width: int, height: int):
    """Redder to the right."""
    red = np.broadcast_to(np.linspace(0, 255, width).round().astype(np.uint8), (height, width))
    return Image.fromarray(np.stack([red, red * 0, red * 0], axis=-1))


def test_the_middle_of_a_wide_picture_and_black_around_a_small_one():
    middle = PreparationConfig(size=(4, 4), shorter_side=4, mean=(0.0,) * 3, std=(1.0,) * 3)
    found = middle(ramp(8, 4))
    np.testing.assert_allclose(found[0], np.asarray(ramp(8, 4))[:, 2:6, 0] / 255, atol=1e-6)
    framed = PreparationConfig(size=(5, 4), shorter_side=2, mean=(0.0,) * 3, std=(1.0,) * 3)(ramp(2, 2))
    assert np.argwhere(framed[0]).tolist() == [[2, 2], [3, 2]]  # an odd row more is above


def test_mean_and_deviation_become_zero_and_one():
    grey = Image.new("RGB", (2, 2), (51, 102, 153))
    found = PreparationConfig(size=(2, 2), mean=(0.2, 0.2, 0.2), std=(0.2, 0.4, 0.1))(grey)
    np.testing.assert_allclose(found[:, 0, 0], [0, 0.5, 4], atol=1e-5)
    assert PreparationConfig(size=(2, 2), channels=1)(grey.convert("L")).shape == (1, 2, 2)


def test_chance_is_a_function_of_its_seed_and_stays_in_its_bounds():
    prepare = PreparationConfig(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3, resample="bilinear")
    augment = AugmentationConfig(scale=(0.25, 0.5), flip=0.5)
    picture = ramp(64, 64)
    draws = [prepare(picture, augment, (7, 0, sample))[0] for sample in range(60)]
    again = [prepare(picture, augment, (7, 0, sample))[0] for sample in range(60)]
    np.testing.assert_array_equal(draws, again)
    assert len({draw.tobytes() for draw in draws}) > 50
    flipped = sum(draw[0, 0] > draw[0, -1] for draw in draws)
    assert 15 < flipped < 45
    spans = [abs(draw[0, 0] - draw[0, -1]) * 8 / 7 for draw in draws]  # widths, in those of the picture
    assert 0.4 < min(spans) < max(spans) < 0.85
    long_one = prepare(ramp(400, 2), AugmentationConfig(scale=(1.0, 1.0), flip=0.0), (1,))[0]
    assert long_one[0, -1] - long_one[0, 0] < 0.02  # no draw fits: the middle


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"size": (0, 8)}, r"size = \[0, 8\]"),
        ({"channels": 4}, "channels = 4 must be 3"),
        ({"mean": (0.5,)}, "must be channels = 3 numbers"),
        ({"std": (0.5, 0.5, 0.0)}, "std positive"),
        ({"shorter_side": 0}, "shorter_side = 0"),
    ],
)
def test_settings_that_are_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        PreparationConfig(**values)
    for bad in ({"scale": (0.5, 0.2)}, {"ratio": (0.0, 1.0)}, {"flip": 2.0}):
        with pytest.raises(InputError):
            AugmentationConfig(**bad)
