"""A signal to one process stops all of them after the same step, so that they can save and exit 0.

SIGTERM is what `scancel`, a time limit and a cloud's reclaim send first; SIGUSR1 is what `sbatch
--signal=USR1@120` asks for. A second SIGTERM or Ctrl-C ends the run at once, even inside a collective. What
comes with the first is no second: `timeout` sends its signal to the process and to its group, and launchers
pass on what every process has received already.
"""

import os
import signal
import threading
import time
from typing import Any, Self

from mjx.launch import connect, coordination
from mjx.launch.coordination import Notice, Notices
from mjx.launch.ending import INTERRUPTED, TERMINATED, claim, leave, say

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_AT_ONCE = {signal.SIGTERM: TERMINATED, signal.SIGINT: INTERRUPTED}
"""What ends the run when it comes a second time, and the exit code."""
_AGREEMENT_SECONDS = 600
ECHO_SECONDS = 3.0
"""So long after the first a signal of its kind is the same one once more."""


class Preemption:
    """`with Preemption() as preemption:` around the loop, and `preemption.should_stop(step)` after every
    step.

    All processes must ask after the same steps. Entered on the main thread, where Python takes signals.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        """Such as `process 1 received SIGTERM`, once a signal has come."""
        self._step = -1
        self._stop_at: int | None = None
        self._agreeing = False
        self._lock = threading.Lock()
        self._first: dict[signal.Signals, float] = {}
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._notices = connect.notices()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # Python runs a handler only between two of its own instructions, never inside a collective. The
        # number of the signal, though, is written to this pipe at once, and a thread reads it.
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, lambda *_: None)
        self._thread = threading.Thread(target=self._watch, name="mjx-signals", daemon=True)
        self._thread.start()
        if self._notices is not None:
            self._notices.listen(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            # None: the old handler was not set from Python, and cannot be put back.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._write)
        self._thread.join()
        if self._notices is not None:
            self._notices.ignore(self._hear)

    def should_stop(self, step: int) -> bool:
        """Whether to save and stop after `step`: the same answer in every process.

        Raises KeyboardInterrupt after a Ctrl-C that Python lost, as it does in a callback of the garbage
        collector.
        """
        if signal.SIGINT in self._first:
            raise KeyboardInterrupt
        with self._lock:  # held by an agreement on its way, until it is known where to stop
            self._step = step
            return self._stop_at is not None and step >= self._stop_at

    def _watch(self) -> None:
        while numbers := os.read(self._read, 64):
            for number in numbers:
                self._take(signal.Signals(number))
        os.close(self._read)

    def _take(self, number: signal.Signals) -> None:
        if number not in (*SIGNALS, signal.SIGINT):
            return
        since = time.monotonic() - self._first.setdefault(number, time.monotonic())
        if since > ECHO_SECONDS and number in _AT_ONCE:
            self._end(number, _AT_ONCE[number])
        if number == signal.SIGINT:  # raised KeyboardInterrupt in the main thread, if that can hear
            return
        own = self._notices.process_id if self._notices is not None else 0
        reason = f"process {own} received {number.name}"
        if self._notices is not None:
            self._notices.post(Notice(kind="stop", process_id=own, text=reason, exit_code=0))
            return
        if self.reason is None:
            self.reason = reason
            say(f"mjx: {number.name} received: the run stops after this step")
            with self._lock:
                self._stop_at = self._step + 1

    def _hear(self, notice: Notice) -> None:
        """On the thread that reads the notices; the first `stop` starts the agreement, in every process
        alike."""
        if notice.kind != "stop" or self._agreeing or self._notices is None:
            return
        self._agreeing = True
        self.reason = notice.text
        threading.Thread(target=self._agree, args=(self._notices,), name="mjx-agree", daemon=True).start()

    def _agree(self, notices: Notices) -> None:
        """The furthest step of any process, plus one: no process has answered for that step yet."""
        shared = coordination.client()
        if shared is None:
            return
        with self._lock:
            shared.key_value_set(f"mjx/stop/{notices.process_id}", str(self._step))
            shared.wait_at_barrier("mjx/stop", _AGREEMENT_SECONDS * 1000)
            steps = [int(value) for _, value in shared.key_value_dir_get("mjx/stop/")]
            self._stop_at = max(steps) + 1
        if notices.process_id == 0:
            say(f"mjx: {self.reason}: all processes stop after step {self._stop_at}")

    def _end(self, number: signal.Signals, code: int) -> None:
        own = self._notices.process_id if self._notices is not None else 0
        claim()
        say(f"mjx: process {own} received {number.name} a second time and ends at once")
        if self._notices is not None:
            text = f"it received {number.name} a second time"
            self._notices.post(Notice(kind="interrupt", process_id=own, text=text, exit_code=code))
            time.sleep(0.1)
        leave(self._notices, code)
