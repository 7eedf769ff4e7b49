"""A window of steps recorded by JAX's profiler."""

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax

from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Which steps to record. The trace opens in TensorBoard's profile plugin, XProf or Perfetto."""

    start: int | None = None
    """Steps of this process before the recording, counted from where it starts or resumes; the first few
    compile and warm up. Unset: no recording."""
    steps: int = 3
    """Steps to record."""

    def __post_init__(self):
        if self.start is not None and self.start < 0:
            raise InputError(f"start = {self.start} is negative (0 records from the first step)")
        if self.steps < 1:
            raise InputError(f"steps = {self.steps} must be 1 or more")


class Profiler:
    """Records the configured steps: `with profiler.step(n):` around each step, then `after_step`."""

    def __init__(self, config: ProfileConfig, folder: str | Path):
        self.config = config
        self.folder = Path(folder)
        self._seen = 0
        self._recording = False

    @contextlib.contextmanager
    def step(self, step: int):
        """Around the dispatch of one step: the trace's step marker, and the start of the window."""
        if self._seen == self.config.start:
            self.folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(str(self.folder))
            self._recording = True
        self._seen += 1
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def after_step(self, outputs: Any) -> bool:
        """The end of the window: wait for the step's outputs and write the trace. True if it was written."""
        if self._recording and self.config.start is not None:
            if self._seen < self.config.start + self.config.steps:
                return False
            jax.block_until_ready(outputs)
            return self.close()
        return False

    def close(self) -> bool:
        """Write the trace of a window that is still open: training ended, or broke, inside of it."""
        if not self._recording:
            return False
        self._recording = False
        try:
            jax.profiler.stop_trace()
        except Exception as error:  # what is trained does not depend on it
            logging.getLogger("mjx").warning("The profile could not be written: %s", error)
            return False
        return True
