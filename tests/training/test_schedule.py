import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.training.schedule import ScheduleConfig, build_schedule

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens/training/schedule.json").read_text())


def case_name(golden):
    config = golden["config"]
    return "-".join(str(config.get(k, "")) for k in ("kind", "wsd_decay", "warmup_steps"))


@pytest.mark.parametrize("golden", GOLDENS, ids=case_name)
def test_learning_rates_equal_megatrons_scheduler_during_and_after_the_decay(golden):
    schedule = jax.jit(jax.vmap(build_schedule(ScheduleConfig(**golden["config"]), total_steps=10**6)))
    expected = np.array(golden["learning_rates"])
    rates = schedule(np.arange(len(expected)))
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, expected, rtol=2e-6, atol=1e-10)


def test_the_first_update_of_a_warm_up_has_learning_rate_zero():
    schedule = build_schedule(ScheduleConfig(learning_rate=1.0, warmup_steps=4), 100)
    assert [float(schedule(step)) for step in (0, 1, 4)] == [0.0, 0.25, 1.0]


def test_the_decay_ends_with_training_unless_told_otherwise():
    config = ScheduleConfig(kind="linear", learning_rate=1.0, min_learning_rate=0.1)
    np.testing.assert_allclose(build_schedule(config, 50)(25), 0.55, rtol=1e-6)
    np.testing.assert_allclose(build_schedule(config, 50)(50), 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (dict(learning_rate=-1.0), "learning_rate = -1.0"),
        (dict(learning_rate=float("nan")), "learning_rate = nan"),
        (dict(learning_rate=1e-4, min_learning_rate=1e-3), "min_learning_rate = 0.001 is above"),
        (dict(warmup_steps=-2), "warmup_steps = -2"),
        (dict(decay_steps=0), "decay_steps = 0"),
        (dict(kind="wsd"), "needs wsd_decay_steps"),
        (dict(kind="wsd", wsd_decay_steps=0), "wsd_decay_steps = 0"),
        (dict(kind="cosine", wsd_decay_steps=5), "wsd_decay_steps = 5 has no meaning"),
    ],
)
def test_a_config_that_cannot_work_is_refused_by_name_and_value(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        ScheduleConfig(**fields)


def test_a_warm_up_longer_than_training_is_refused():
    with pytest.raises(
        InputError, match="warmup_steps = 10 must be smaller than the length of training = 10"
    ):
        build_schedule(ScheduleConfig(warmup_steps=10), 10)
    config = ScheduleConfig(kind="wsd", warmup_steps=8, wsd_decay_steps=5, decay_steps=12)
    with pytest.raises(InputError, match="do not fit into decay_steps = 12"):
        build_schedule(config, 100)
