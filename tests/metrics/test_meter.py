import math
import time

import jax
import jax.numpy as jnp
import pytest

from mjx.metrics.meter import Meter


def step_metrics(loss, *, skipped=0.0, rate=1e-3):
    values = dict(loss=loss, learning_rate=rate, update_skipped=skipped)
    return {name: jnp.float32(value) for name, value in values.items()}


def run(meter, losses, **kwargs):
    reports = [meter.push(i, step_metrics(loss, **kwargs)) for i, loss in enumerate(losses, start=1)]
    return [report for report in [*reports, meter.flush()] if report is not None]


def test_every_step_is_reported_once_one_step_late_and_the_last_by_flush():
    meter = Meter(interval=2, tokens_per_step=8)
    assert meter.push(1, step_metrics(4.0)) is None
    report = meter.push(2, step_metrics(3.0))
    assert (report.step, report.metrics["loss"], report.record) == (1, 4.0, None)
    report = meter.flush()
    assert (report.step, report.metrics["loss"], report.record["loss"]) == (2, 3.0, 3.5)
    assert meter.flush() is None


def test_a_record_holds_the_mean_loss_the_last_learning_rate_and_the_sum_of_skips():
    meter = Meter(interval=3, tokens_per_step=8)
    meter.push(1, step_metrics(4.0, rate=1e-3))
    meter.push(2, step_metrics(math.nan, skipped=1.0, rate=2e-3))
    meter.push(3, step_metrics(2.0, rate=3e-3))
    record = meter.flush().record
    assert record["loss"] == 3.0
    assert record["learning_rate"] == pytest.approx(3e-3)
    assert record["updates_skipped"] == 1.0
    assert "update_skipped" not in record


def test_an_interval_of_skipped_steps_has_no_loss():
    reports = run(Meter(interval=1, tokens_per_step=8), [math.nan], skipped=1.0)
    assert math.isnan(reports[0].record["loss"])


def test_intervals_end_at_multiples_of_the_step_so_that_a_resumed_run_keeps_them():
    meter = Meter(interval=10, tokens_per_step=8)
    reports = [meter.push(step, step_metrics(1.0)) for step in range(18, 32)]
    assert [report.step for report in reports if report and report.record] == [20, 30]


def test_the_last_step_of_a_run_has_a_record_whatever_the_interval():
    meter = Meter(interval=10, tokens_per_step=8)
    for step in (1, 2, 3):
        meter.push(step, step_metrics(float(step)))
    report = meter.flush(final=True)
    assert (report.step, report.record["loss"]) == (3, 2.0)


def test_speed_counts_neither_the_first_step_nor_pauses():
    meter = Meter(interval=4, tokens_per_step=1000, flops_per_step=2e12, peak_flops=1e14)
    time.sleep(0.3)  # what compiling the first step takes
    reports = []
    for step in range(1, 6):
        reports.append(meter.push(step, step_metrics(1.0)))
        time.sleep(0.05)
        if step == 3:
            with meter.pause():
                time.sleep(0.5)
    record = reports[-1].record
    assert 0.045 < record["seconds_per_step"] < 0.12
    assert record["tokens_per_second"] == pytest.approx(1000 / record["seconds_per_step"])
    assert record["tflops_per_second"] == pytest.approx(2 / record["seconds_per_step"])
    assert record["mfu"] == pytest.approx(0.02 / record["seconds_per_step"])


def test_without_flops_or_peak_there_is_no_utilisation():
    reports = run(Meter(interval=2, tokens_per_step=8), [1.0, 1.0])
    assert not {"mfu", "tflops_per_second"} & reports[-1].record.keys()
    reports = run(Meter(interval=2, tokens_per_step=8, flops_per_step=1.0), [1.0, 1.0])
    assert "tflops_per_second" in reports[-1].record
    assert "mfu" not in reports[-1].record


def test_metrics_come_to_the_host_under_a_transfer_guard():
    metrics = step_metrics(4.0)
    with jax.transfer_guard("disallow"):
        meter = Meter(interval=1, tokens_per_step=8)
        meter.push(1, metrics)
        with meter.pause():
            pass
        assert meter.flush().metrics["loss"] == 4.0


def test_the_host_dispatches_a_step_before_it_waits_for_the_one_before():
    waited = []

    class Value:
        """A scalar on a device, as far as the meter can see."""

        def __init__(self, step):
            self.step = step

        def copy_to_host_async(self):
            waited.append(("dispatched", self.step))

        def __array__(self, dtype=None, copy=None):
            waited.append(("fetched", self.step))
            return jax.numpy.zeros(()).__array__()

        def __float__(self):
            waited.append(("fetched", self.step))
            return 0.0

    meter = Meter(interval=10, tokens_per_step=8)
    for step in (1, 2, 3):
        meter.push(step, {"loss": Value(step)})
    for step in (1, 2):
        assert waited.index(("fetched", step)) > waited.index(("dispatched", step + 1))
    assert ("fetched", 3) not in waited
