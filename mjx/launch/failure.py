"""One process fails, all end: within seconds, with a non-zero code, and with the reason in every log."""

import contextlib
import logging
import os
import socket
import time
import traceback
from collections.abc import Iterator

from mjx.errors import InputError
from mjx.launch import connect, coordination
from mjx.launch.barrier import barrier
from mjx.launch.cluster import Cluster
from mjx.launch.coordination import Notice, Notices
from mjx.launch.ending import BAD_INPUT, FAILED, INTERRUPTED, claim, leave, say
from mjx.launch.runtime import RuntimeConfig, find_cluster

_REPORT_SECONDS = 20
"""How long a process that fails before it has met the others looks for them, to tell them."""
_ECHO_SECONDS = 3.0
"""How long a process with a bad input waits for process 0 to say the same."""


@contextlib.contextmanager
def end_together() -> Iterator[None]:
    """Put the whole of `main` inside, from reading the config on.

    An error in one process is printed there at once, with its traceback and the process's number, and ends
    all (code 1). An `InputError` is printed as one sentence, once, also where every process has it (code 2);
    Ctrl-C ends with 130. At the end a process waits for the others, so that a late failure is still
    everybody's. In a process that runs alone `InputError` and Ctrl-C become `SystemExit`, and other errors
    pass through.
    """
    try:
        yield
    except SystemExit as exit_:
        notices = connect.notices()
        code = exit_.code if isinstance(exit_.code, int) else (FAILED if exit_.code else 0)
        if notices is None or code == 0:
            raise
        claim()
        text = f"it left with code {exit_.code}"
        notices.post(Notice(kind="exit", process_id=notices.process_id, text=text, exit_code=code))
        leave(notices, code)
    except BaseException as error:  # Ctrl-C included
        cluster = _cluster()
        if cluster.num_processes == 1:
            _fail_alone(error)
            raise
        claim()
        _fail(cluster, error)
    if connect.notices() is not None:
        _wait_for_the_others()


@contextlib.contextmanager
def spared(what: str, *, together: bool = False) -> Iterator[None]:
    """Around what comes after the last checkpoint: an error in it no longer fails the run, but warns.

    `together`: all processes do it, and the others may now wait for this one for ever: all end here, with
    code 0.
    """
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        logging.getLogger("mjx").warning("The run is done and saved, but not %s: %s", what, reason)
        notices = connect.notices()
        if together and notices is not None:
            claim()
            text = f"all is saved, but not {what}"
            notices.post(Notice(kind="spared", process_id=notices.process_id, text=text, exit_code=0))
            leave(notices, 0)


def _cluster() -> Cluster:
    notices = connect.notices()
    if notices is not None:  # a config may say more than the environment
        return Cluster(num_processes=notices.num_processes, process_id=notices.process_id)
    try:
        return find_cluster(RuntimeConfig(), os.environ)
    except InputError:
        return Cluster()


def _fail_alone(error: BaseException) -> None:
    if isinstance(error, InputError):
        say(f"mjx: error: {error}")
        raise SystemExit(BAD_INPUT) from None
    if isinstance(error, KeyboardInterrupt):
        say("mjx: interrupted")
        raise SystemExit(INTERRUPTED) from None


def _fail(cluster: Cluster, error: BaseException) -> None:
    own = cluster.process_id
    summary = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, InputError):
        notice = Notice(kind="input", process_id=own, text=str(error), exit_code=BAD_INPUT)
        if own == 0:
            say(f"mjx: error: {error}")
    elif isinstance(error, KeyboardInterrupt):
        notice = Notice(kind="interrupt", process_id=own, text="it was interrupted", exit_code=INTERRUPTED)
        say(f"mjx: process {own} was interrupted")
    else:
        notice = Notice(kind="error", process_id=own, text=summary, exit_code=FAILED)
        where = f"process {own} of {cluster.num_processes} on {socket.gethostname()}"
        say(f"mjx: {where} failed:\n{''.join(traceback.format_exception(error))}")
    notices = connect.notices() or _meet(cluster, notice)
    if notices is not None:
        others = [other for other in notices.read() if other.ends_the_run and other.process_id != own]
        notices.post(notice)
        if notice.kind == "error":
            for other in others[:1]:
                if other.text != notice.text:
                    say(f"mjx: before process {own}, process {other.process_id} failed: {other.text}")
    if notice.kind == "input" and own != 0 and not (notices and _is_said_by_first(notices, notice)):
        say(f"mjx: error in process {own}: {error}")
    leave(notices, notice.exit_code)


def _meet(cluster: Cluster, notice: Notice) -> Notices | None:
    """Join the others only to tell them; None where that cannot be."""

    def give_up(_: str) -> None:
        if notice.kind == "input" and cluster.process_id != 0:
            say(f"mjx: error in process {cluster.process_id}: {notice.text}")
        leave(None, notice.exit_code)

    try:
        if coordination.backends_started():
            return None
        return connect.connect(cluster, initialization_seconds=_REPORT_SECONDS, give_up=give_up)
    except Exception:  # the first error is the one to show
        return None


def _is_said_by_first(notices: Notices, notice: Notice) -> bool:
    limit = time.monotonic() + _ECHO_SECONDS
    while time.monotonic() < limit:
        if any(n.process_id == 0 and n.kind == "input" and n.text == notice.text for n in notices.read()):
            return True
        time.sleep(0.1)
    return False


def _wait_for_the_others() -> None:
    """Until all are done, with the notices still read: Python's exit would wait as well, but deaf."""
    notices = connect.notices()
    if notices is None or coordination.client() is None:
        return
    barrier("mjx/end", connect.shutdown_seconds())
    notices.stop()
