"""Step metrics brought to the host without making the device wait, with means and speeds."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jaxtyping import Array, Float

SPEEDS = ("seconds_per_step", "tokens_per_second", "data_seconds_per_step", "tflops_per_second", "mfu")
"""Keys that the meter adds to a record: over the record's steps, without compilation and pauses.
`data_seconds_per_step` is how long the batches were waited for, where that was measured;
`tflops_per_second` is of all devices together; `mfu` (model FLOP utilisation) is there where the peak
is known."""

LAST = ("learning_rate",)
"""Metrics of which a record holds the last value. Of `update_skipped` it holds the sum as
`updates_skipped`; of every other metric the mean over the steps that were not skipped."""


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What is known of one step, on the host."""

    step: int
    """Updates done, this one included."""
    metrics: dict[str, float]
    """This step's metrics."""
    record: dict[str, float] | None
    """Means and speeds, on the last step of an interval and of a run."""


class Meter:
    """Reads the metrics of a step when the next one has been dispatched.

    A fetch waits for its step to end. Fetching one step late, the host has always queued the next
    step before it waits, and the device never idles for a number to be printed.
    """

    def __init__(
        self,
        *,
        interval: int,
        tokens_per_step: int,
        flops_per_step: float | None = None,
        peak_flops: float | None = None,
    ):
        """`flops_per_step`: model FLOPs of a training step on all devices together; `peak_flops`: FLOP/s
        that they can do together, see `hardware.peak_flops`. Without them there is no utilisation."""
        self.interval = interval
        self.tokens_per_step = tokens_per_step
        self.flops_per_step = flops_per_step
        self.peak_flops = peak_flops
        self._pending: tuple[int, Mapping[str, Any]] | None = None
        self._steps: list[dict[str, float]] = []
        self._timed_steps = 0
        self._start: float | None = None
        self._waited: float | None = None

    def push(self, step: int, metrics: Mapping[str, Float[Array, ""]]) -> StepReport | None:
        """Hand in the metrics of the step just dispatched; get the report of the one before."""
        for value in metrics.values():
            value.copy_to_host_async()
        report = self.flush()
        self._pending = (step, metrics)
        return report

    def flush(self, *, final: bool = False) -> StepReport | None:
        """The report of the last step handed in, after waiting for it. None if there is none left.

        `final`: it has a record, as no more steps follow.
        """
        if self._pending is None:
            return None
        (step, on_device), self._pending = self._pending, None
        metrics = {name: float(value) for name, value in jax.device_get(dict(on_device)).items()}
        now = time.perf_counter()
        if self._start is None:
            self._start = now  # the first step of a process compiles: the clock starts behind it
            self._waited = None if self._waited is None else 0.0
        else:
            self._timed_steps += 1
        self._steps.append(metrics)
        record = None
        if final or step % self.interval == 0:
            record = _summary(self._steps) | self._speeds(now - self._start)
            self._steps, self._timed_steps, self._start = [], 0, now
            self._waited = None if self._waited is None else 0.0
        return StepReport(step, metrics, record)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Stop the clock for what is not training: evaluation, a checkpoint, a sample."""
        if self._pending is not None:
            jax.block_until_ready(self._pending[1])
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._start is not None:
                self._start += time.perf_counter() - start

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for the next batch to be read."""
        start = time.perf_counter()
        yield
        self._waited = (self._waited or 0.0) + time.perf_counter() - start

    def _speeds(self, seconds: float) -> dict[str, float]:
        if self._timed_steps == 0 or seconds <= 0:
            return {}
        seconds_per_step = seconds / self._timed_steps
        speeds = {
            "seconds_per_step": seconds_per_step,
            "tokens_per_second": self.tokens_per_step / seconds_per_step,
        }
        if self._waited is not None:
            speeds["data_seconds_per_step"] = self._waited / self._timed_steps
        if self.flops_per_step is not None:
            speeds["tflops_per_second"] = self.flops_per_step / seconds_per_step / 1e12
            if self.peak_flops is not None:
                speeds["mfu"] = self.flops_per_step / seconds_per_step / self.peak_flops
        return speeds


def _summary(steps: list[dict[str, float]]) -> dict[str, float]:
    counted = [metrics for metrics in steps if not metrics.get("update_skipped")]
    summary = {}
    for name in steps[-1]:
        if name == "update_skipped":
            summary["updates_skipped"] = sum(metrics[name] for metrics in steps)
        elif name in LAST:
            summary[name] = steps[-1][name]
        else:
            values = [metrics[name] for metrics in counted if name in metrics]
            summary[name] = math.fsum(values) / len(values) if values else math.nan
    return summary
