"""A lock on a folder that the kernel frees when its holder dies, `kill -9` included."""

import contextlib
import datetime
import fcntl
import json
import logging
import os
import socket
import weakref
from pathlib import Path
from typing import Any

from mjx.errors import InputError

_held: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()


class FolderLock:
    """An exclusive `flock` on a file; the file stays when the lock is freed and names its last holder.

    The lock belongs to the open file, not to the process: a second `FolderLock` on the same file is refused
    in the same process too. On a shared file system it holds across hosts (NFS, and Lustre mounted with
    `flock`); where a file system has no locks at all, a warning says so and the folder is used unlocked.
    """

    def __init__(self, file: str | os.PathLike, folder: str | os.PathLike):
        """`file` is what is locked, `folder` what the message calls the thing that is in use."""
        self.file = Path(file)
        self.folder = Path(folder)
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> None:
        """Raises InputError, naming host, process and start of the holder, when another one holds it."""
        if self.held:
            return
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise InputError(
                f"{self.folder} is in use by a live run: {holder}. "
                "Stop that run, or give this one another folder."
            ) from None
        except OSError as error:
            logging.getLogger(__name__).warning(
                "%s: this file system has no file locks (%s); two runs in one folder would not be noticed.",
                self.folder,
                error.strerror,
            )
        self._descriptor = descriptor
        _held.add(self)
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        note = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": started}) + "\n"
        # A disk without a free block must not keep a run from being resumed: the note is a courtesy.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note.encode(), 0)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)

    def __enter__(self) -> "FolderLock":
        self.acquire()
        return self

    def __exit__(self, *_: Any) -> None:
        self.release()


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {note['pid']} on host {note['host']}, started {note['started']}"
    except (ValueError, KeyError, TypeError, OSError):
        return "its holder has not written its name"


def _leave_locks_to_parent() -> None:
    """A forked child shares the open file, and would keep the lock alive after its parent was killed."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_leave_locks_to_parent)
