"""The watchdog: a run that makes no steps ends, and shows where every thread of every process stood.

A heartbeat finds a process that is dead; this finds one that is alive and stuck, in a collective, a data
loader, a file system.
"""

import contextlib
import dataclasses
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

from mjx.errors import InputError
from mjx.launch import connect
from mjx.launch.coordination import Notice
from mjx.launch.ending import FAILED, claim, dump_stacks, leave, say

_LAST_RESORT_SECONDS = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchdogConfig:
    """When a run counts as stuck."""

    stall_seconds: float | None = 1800.0
    """The longest a step may take, with what happens between two. None: no watchdog."""
    first_step_seconds: float = 7200.0
    """The longest until the first step is done: restoring, compiling."""

    def __post_init__(self) -> None:
        if self.stall_seconds is not None and self.stall_seconds <= 0:
            raise InputError(
                f"stall_seconds = {self.stall_seconds} must be positive, or null for no watchdog."
            )
        if self.first_step_seconds <= 0:
            raise InputError(f"first_step_seconds = {self.first_step_seconds} must be positive.")


class Watchdog:
    """Call `beat(step)` after every step, inside `with Watchdog(config) as watchdog:`."""

    def __init__(self, config: WatchdogConfig):
        self._config = config
        self._step: int | None = None
        self._doing = "the first step"
        self._limit = config.first_step_seconds
        self._since = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mjx-watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self._config.stall_seconds is not None:
            self._since = time.monotonic()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def beat(self, step: int) -> None:
        """`step` is done. The same step again is no progress."""
        if step != self._step:
            self._step = step
            self._expect(f"the step after {step}", self._config.stall_seconds or 0.0)

    @contextlib.contextmanager
    def allow(self, seconds: float, what: str) -> Iterator[None]:
        """Give `what` (an evaluation, a checkpoint) its own limit; the step after it has a fresh one."""
        doing, limit = self._doing, self._limit
        self._expect(what, seconds)
        try:
            yield
        finally:
            self._expect(doing, limit)

    def _expect(self, doing: str, limit: float) -> None:
        self._since, self._doing, self._limit = time.monotonic(), doing, limit

    def _run(self) -> None:
        stream = sys.__stderr__ if sys.__stderr__ is not None else sys.stderr
        look = min(5.0, (self._config.stall_seconds or 0.0) / 4)
        while not self._stopped.is_set():
            # Should some C code hold Python's lock for good, this thread stops, and a thread of C ends the
            # process.
            faulthandler.dump_traceback_later(self._limit + _LAST_RESORT_SECONDS, exit=True, file=stream)
            left = self._since + self._limit - time.monotonic()
            if left <= 0:
                self._end()
            self._stopped.wait(min(left, look))

    def _end(self) -> None:
        claim()
        faulthandler.cancel_dump_traceback_later()
        notices = connect.notices()
        own = notices.process_id if notices is not None else 0
        text = f"no progress in {self._doing} for {self._limit:g} s"
        # All processes stall together as a rule, and each shows its own stacks.
        say(f"mjx: process {own} (pid {os.getpid()}): {text}; all its threads:")
        dump_stacks()
        if notices is not None:
            notices.post(Notice(kind="stalled", process_id=own, text=text, exit_code=FAILED))
        leave(notices, FAILED)
