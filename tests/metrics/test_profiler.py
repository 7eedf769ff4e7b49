import jax
import jax.numpy as jnp
import pytest

from mjx.errors import InputError
from mjx.metrics.profiler import ProfileConfig, Profiler


def run(config, folder, steps):
    profiler = Profiler(config, folder)
    written = []
    for step in range(steps):
        with profiler.step(step):
            out = jax.jit(jnp.sin)(jnp.ones(8))
        if profiler.after_step(out):
            written.append(step)
    return profiler, written


def test_the_configured_window_of_steps_is_written_as_one_trace(tmp_path):
    profiler, written = run(ProfileConfig(start=2, steps=2), tmp_path / "profile", 6)
    assert written == [3]
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1
    assert not profiler.close()


def test_a_window_that_training_ends_in_is_written_on_close(tmp_path):
    profiler, written = run(ProfileConfig(start=1, steps=100), tmp_path / "profile", 3)
    assert written == []
    assert profiler.close()
    assert len(list((tmp_path / "profile").rglob("*.xplane.pb"))) == 1


def test_nothing_is_recorded_unless_asked(tmp_path):
    _, written = run(ProfileConfig(), tmp_path / "profile", 5)
    assert written == []
    assert not (tmp_path / "profile").exists()


def test_a_window_that_cannot_be_is_refused_by_name_and_value():
    with pytest.raises(InputError, match="start = -1"):
        ProfileConfig(start=-1)
    with pytest.raises(InputError, match="steps = 0"):
        ProfileConfig(steps=0)
