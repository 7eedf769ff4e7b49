"""The coordination service of `jax.distributed`: a small key-value store that process 0 serves to all.

JAX has no public name for the client, so the private ones that mjx needs stand here and nowhere else.
Notices are messages that every process sees within a second: a failure, a signal to stop. Each process polls
for them on a thread of its own, so that they arrive while the main thread is inside a collective.
"""

import atexit
import dataclasses
import json
import threading
from collections.abc import Callable
from typing import Any

POLL_SECONDS = 0.5
_PREFIX = "mjx/notice/"


def client() -> Any | None:
    """JAX's distributed client; None in a process that runs alone."""
    from jax._src import distributed

    return distributed.global_state.client


def place() -> tuple[int, int]:
    """(process id, number of processes), without touching a device."""
    from jax._src import distributed

    return distributed.global_state.process_id, distributed.global_state.num_processes


def backends_started() -> bool:
    """Whether a device has been touched, after which JAX takes no start-up settings any more."""
    from jax._src import xla_bridge

    return xla_bridge.backends_are_initialized()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notice:
    """What one process tells all."""

    kind: str
    """error, input, interrupt, stalled, spared: the run ends. stop: the run is asked to save and stop."""
    process_id: int
    text: str
    exit_code: int = 1

    @property
    def ends_the_run(self) -> bool:
        return self.kind != "stop"


class Notices:
    """The notices of this run, as this process sees them."""

    def __init__(self, process_id: int, num_processes: int):
        self.process_id = process_id
        self.num_processes = num_processes
        self._listeners: list[Callable[[Notice], None]] = []
        self._seen: dict[str, Notice] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mjx-notices", daemon=True)

    def start(self) -> None:
        self._thread.start()
        # Registered after jax.distributed's own, hence run before it: the client must outlive the thread.
        atexit.register(self.stop)

    def stop(self) -> None:
        self._stopped.set()
        self._wake.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)

    def post(self, notice: Notice) -> None:
        """Tell all processes; does nothing where this process said something of the kind before."""
        try:
            _client().key_value_set(_key(notice), json.dumps(dataclasses.asdict(notice)))
        except RuntimeError:
            return  # said before, or the coordinator is gone and ends this process itself
        self._wake.set()

    def listen(self, listener: Callable[[Notice], None]) -> None:
        """Call `listener` on the polling thread for every notice, those already there included."""
        with self._lock:
            seen = list(self._seen.values())
            self._listeners.append(listener)
        for notice in seen:
            listener(notice)

    def ignore(self, listener: Callable[[Notice], None]) -> None:
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def read(self) -> list[Notice]:
        """Every notice that has been posted, the lowest process first."""
        try:
            entries = _client().key_value_dir_get(_PREFIX)
        except RuntimeError:
            return []
        notices = {key: Notice(**json.loads(value)) for key, value in entries}
        return sorted(notices.values(), key=lambda notice: notice.process_id)

    def farewell(self, seconds: float) -> None:
        """Leave the run for good: process 0, which serves the others, waits until all have said so or time is
        up."""
        shared = _client()
        try:
            shared.key_value_set(f"mjx/farewell/{self.process_id}", "")
        except RuntimeError:
            return
        if self.process_id != 0:
            return
        waited = 0.0
        while waited < seconds:
            try:
                if len(shared.key_value_dir_get("mjx/farewell/")) >= self.num_processes:
                    return
            except RuntimeError:
                return
            threading.Event().wait(0.1)
            waited += 0.1

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
            if self._stopped.is_set():
                return
            for notice in self.read():
                with self._lock:
                    if _key(notice) in self._seen:
                        continue
                    self._seen[_key(notice)] = notice
                    listeners = list(self._listeners)
                for listener in listeners:
                    listener(notice)


def _key(notice: Notice) -> str:
    return f"{_PREFIX}{notice.kind}/{notice.process_id}"


def _client() -> Any:
    found = client()
    if found is None:
        raise RuntimeError("jax.distributed has been shut down")
    return found
