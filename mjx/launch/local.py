"""Several processes of one command on this machine: what `mjx launch -n 2 -- train ...` does."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from mjx.errors import InputError
from mjx.launch.connect import free_port

_NOISE = "peer ranks. Expected number of connected"
"""In the lines that Gloo prints in every process, often in pieces."""


def launch_local(
    num_processes: int,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    grace_seconds: float = 20.0,
) -> int:
    """Run `argv` in `num_processes` processes and wait; the exit code of the first that failed, or 0.

    Each line of output carries its process's number. A failure gives the others `grace_seconds` to end by
    themselves, saying why, before they are killed. SIGTERM and Ctrl-C are passed on to all; the processes
    decide what they mean. The GPUs that are visible here are shared out. `environment` goes before this
    process's own. Raises `InputError` where the command does not exist.
    """
    if num_processes < 1:
        raise InputError(f"num_processes = {num_processes} must be at least 1.")
    coordinator = f"127.0.0.1:{free_port()}"
    processes: list[subprocess.Popen[str]] = []
    readers: list[threading.Thread] = []
    handlers: dict[signal.Signals, object] = {}
    try:
        # Handlers first: a signal that comes now must find the children that there are.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
                handlers[number] = signal.signal(number, lambda n, _frame: _pass_on(processes, n))
        for process_id in range(num_processes):
            process = _start(
                argv, {**os.environ, **(environment or {}), **_place(process_id, num_processes, coordinator)}
            )
            processes.append(process)
            for source, sink in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
                reader = threading.Thread(target=_relay, args=(process_id, source, sink), daemon=True)
                reader.start()
                readers.append(reader)
        return _wait(processes, grace_seconds)
    finally:
        for process in processes:
            _kill_group(process)
            process.wait()
        for reader in readers:
            reader.join(timeout=5)
        for number, handler in handlers.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]


def _place(process_id: int, num_processes: int, coordinator: str) -> dict[str, str]:
    return {
        "MJX_COORDINATOR": coordinator,
        "MJX_NUM_PROCESSES": str(num_processes),
        "MJX_PROCESS_ID": str(process_id),
        "MJX_LOCAL_PROCESS_ID": str(process_id),
        "MJX_LOCAL_NUM_PROCESSES": str(num_processes),
        "PYTHONUNBUFFERED": "1",
    }


def _start(argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    try:
        # A session of its own: the children's children end with it, and Ctrl-C comes only through us.
        return subprocess.Popen(
            list(argv),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise InputError(f"The command {argv[0]!r} cannot be started: {error.strerror}.") from None


def _relay(process_id: int, source: IO[str] | None, sink: IO[str]) -> None:
    for line in source or ():
        if _NOISE not in line:
            sink.write(f"[{process_id}] {line}" if line.endswith("\n") else f"[{process_id}] {line}\n")
            sink.flush()


def _wait(processes: list[subprocess.Popen[str]], grace_seconds: float) -> int:
    first = 0
    deadline = float("inf")
    while any([process.poll() is None for process in processes]):
        if not first and (first := _first_failure(processes)):
            deadline = time.monotonic() + grace_seconds
        if time.monotonic() > deadline:
            print(
                f"mjx: killing what still runs {grace_seconds:g} s after the failure",
                file=sys.stderr,
                flush=True,
            )
            break
        time.sleep(0.05)
    first = first or _first_failure(processes)
    return first if first >= 0 else 128 - first


def _first_failure(processes: list[subprocess.Popen[str]]) -> int:
    return next((process.returncode for process in processes if process.returncode), 0)


def _pass_on(processes: list[subprocess.Popen[str]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
