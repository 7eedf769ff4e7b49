import json
import math
import random

import matplotlib.image
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.metrics.curve import draw_loss_curve, smoothed


def write(folder, records):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def colours(path):
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    return {f"#{value:06x}" for value in np.unique(pixels @ (65536, 256, 1))}


def test_the_picture_shows_training_and_validation_in_their_colours(tmp_path):
    training = [dict(step=s, loss=3 + 8 * math.exp(-s / 300)) for s in range(10, 1010, 10)]
    write(tmp_path / "plain", training)
    write(tmp_path / "both", training + [dict(step=s, validation_loss=5.0) for s in (500, 1000)])
    plain, both = draw_loss_curve(tmp_path / "plain"), draw_loss_curve(tmp_path / "both", title="A run")
    assert plain == tmp_path / "plain" / "loss.png"
    assert "#2563eb" in colours(plain)
    assert "#d9480f" not in colours(plain)
    assert {"#2563eb", "#d9480f"} <= colours(both)


@pytest.mark.parametrize(
    "records",
    [
        [dict(step=1, loss=4.0)],
        [dict(step=s, loss=None if s == 2 else 4.0) for s in range(1, 5)],
        [dict(step=5, validation_loss=2.0)],
        [dict(step=s, loss=0.0) for s in range(1, 5)],
        [
            dict(step=s, **{"loss": 2.0, "validation_loss/web": 2.1, "validation_loss/code": 1.9})
            for s in (1, 2)
        ],
    ],
    ids=["one point", "a gap", "validation only", "zero", "several validation sets"],
)
def test_short_and_odd_runs_are_drawn_too(tmp_path, records):
    write(tmp_path, records)
    assert draw_loss_curve(tmp_path).stat().st_size > 5000


def test_a_run_without_a_loss_is_an_error_that_names_the_file(tmp_path):
    write(tmp_path, [dict(step=1, other=2.0)])
    with pytest.raises(InputError, match=r"metrics.jsonl has no record with a loss"):
        draw_loss_curve(tmp_path)


def test_smoothing_follows_the_fall_and_forgets_spikes_and_noise():
    noise = random.Random(0)
    steps = list(range(2000))
    truth = [3 + 8 * math.exp(-s / 100) for s in steps]
    noisy = [value * (1 + noise.gauss(0, 0.02)) for value in truth]
    noisy[1500] *= 5
    at, values = smoothed(steps, noisy)
    assert len(at) == 400
    errors = [abs(value / truth[round(step)] - 1) for step, value in zip(at, values, strict=True)]
    assert max(errors) < 0.06
    assert sum(errors) / len(errors) < 0.01


def test_names_are_drawn_as_they_stand(tmp_path):
    records = [dict(step=s, loss=4.0, **{r"validation_loss/$\x_$": 2.0}) for s in (1, 2)]
    folder = tmp_path / "$USER_$JOB"
    write(folder, records)
    assert draw_loss_curve(folder).exists()
