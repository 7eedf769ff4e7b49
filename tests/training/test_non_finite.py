import math

import pytest

from mjx.training.non_finite import NonFiniteError, check_finite


@pytest.mark.parametrize("metrics", [dict(loss=math.nan, grad_norm=1.0), dict(loss=2.0, grad_norm=math.inf)])
def test_stop_raises_with_the_step_and_both_values_and_skip_does_not(metrics):
    with pytest.raises(
        NonFiniteError, match=f"Step 7 .*loss = {metrics['loss']}, grad_norm = {metrics['grad_norm']}"
    ):
        check_finite(7, metrics, "stop")
    check_finite(7, metrics, "skip")


def test_finite_metrics_pass():
    check_finite(7, dict(loss=2.0, grad_norm=0.0, validation_loss=math.nan), "stop")
