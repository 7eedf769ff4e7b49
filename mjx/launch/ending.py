"""How a process leaves a run that has failed: at once, after its last words, and never through a barrier.

Python's ordinary exit runs `jax.distributed.shutdown`, which waits for processes that are still inside a
collective and wait for this one. So a failed process tells the others, flushes, and leaves by `os._exit`.
"""

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
from typing import NoReturn

from mjx.launch.coordination import Notice, Notices

FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 1, 2, 130, 143
"""Exit codes: an error or a stall; something the user can mend; Ctrl-C; a second SIGTERM."""

GRACE_SECONDS = 0.5
"""How long a process that hears of another's failure leaves its own main thread to fail in its own words."""
FAREWELL_SECONDS = 5.0

_turn = threading.Lock()


def claim() -> None:
    """Become the thread that ends this process; another thread that has begun to is left to finish."""
    if not _turn.acquire(timeout=60):
        os._exit(FAILED)


def leave(notices: Notices | None, code: int) -> NoReturn:
    """Flush, let process 0 stay until all have heard, and end this process."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a closed pipe must not keep the process
            stream.flush()
    if notices is not None:
        notices.farewell(FAREWELL_SECONDS)
    os._exit(code)


def say(text: str) -> None:
    """Write to stderr in one piece, so that the processes' words do not mix."""
    sys.stderr.write(text if text.endswith("\n") else text + "\n")
    sys.stderr.flush()


def dump_stacks() -> None:
    """Every thread's Python stack, on the real stderr."""
    stream = sys.__stderr__ if sys.__stderr__ is not None else sys.stderr
    stream.flush()
    faulthandler.dump_traceback(file=stream, all_threads=True)


def follow(notices: Notices, notice: Notice) -> None:
    """End this process because another one has failed; called on the thread that reads the notices."""
    if notice.process_id == notices.process_id or not notice.ends_the_run:
        return
    time.sleep(GRACE_SECONDS)
    if not _turn.acquire(blocking=False):
        return
    own = notices.process_id
    if notice.kind == "input":
        # Process 0 says the sentence once for all, and the one who found it hears that and keeps quiet.
        if own == 0:
            say(f"mjx: error: {notice.text} (found by process {notice.process_id})")
            notices.post(Notice(kind="input", process_id=0, text=notice.text, exit_code=notice.exit_code))
    elif notice.kind == "stalled":
        say(
            f"mjx: process {own} ends because process {notice.process_id} stalled: {notice.text}. Its own "
            "stacks:"
        )
        dump_stacks()
    else:
        say(f"mjx: process {own} ends because process {notice.process_id} did: {notice.text}")
    leave(notices, notice.exit_code)
