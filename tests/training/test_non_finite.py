import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.training.non_finite import (
    FiniteWatch,
    NonFiniteError,
    update_by_conditional,
    update_by_select,
)


@pytest.mark.parametrize("metrics", [dict(loss=math.nan, grad_norm=1.0), dict(loss=2.0, grad_norm=math.inf)])
def test_stop_raises_with_the_step_and_both_values_and_skip_does_not(metrics):
    with pytest.raises(
        NonFiniteError, match=f"Step 7 .*loss = {metrics['loss']}, grad_norm = {metrics['grad_norm']}"
    ):
        FiniteWatch("stop", 10).look(7, metrics)
    FiniteWatch("skip", 10).look(7, metrics)


def test_finite_metrics_pass():
    FiniteWatch("stop", 10).look(7, dict(loss=2.0, grad_norm=0.0, validation_loss=math.nan))


def test_skipping_ends_after_as_many_steps_in_a_row_as_are_allowed():
    watch = FiniteWatch("skip", 3)
    counts = []
    for step, loss in enumerate([2.0, math.nan, math.inf, 2.0, math.nan, math.nan], start=1):
        watch.look(step, dict(loss=loss, grad_norm=1.0))
        counts.append(watch.skipped)
    assert counts == [0, 1, 2, 0, 1, 2]
    with pytest.raises(NonFiniteError, match=r"Step 7 .* the last of 3 in a row .*optimizer.skip_limit"):
        watch.look(7, dict(loss=math.nan, grad_norm=1.0))


@pytest.mark.parametrize("choose", [update_by_conditional, update_by_select])
@pytest.mark.parametrize("finite", [True, False])
def test_an_update_is_made_whole_or_not_at_all(choose, finite):
    """Both ways: what a CPU runs, and what GPUs run."""
    params, state = {"w": jnp.arange(3.0)}, {"mean": jnp.ones(3), "count": jnp.array(4)}

    def update(params, state):
        spoilt = params["w"] + (1.0 if finite else jnp.nan)
        return {"w": spoilt}, {"mean": state["mean"] * spoilt, "count": state["count"] + 1}

    got = jax.jit(lambda p, s: choose(jnp.array(finite), update, p, s))(params, state)
    expected = update(params, state) if finite else (params, state)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
