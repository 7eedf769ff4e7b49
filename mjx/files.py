"""Paths as users write them, files and folders that appear whole or not at all, locks that die with their
holder, and full disks.

What is being made stands beside its place, hidden, is written out to the disk, and then takes its name. So a
reader, also after a power cut, finds the old or the new, never half of one.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import shutil
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

from mjx.errors import InputError
from mjx.words import readable_gigabytes


def local_path(path: str | os.PathLike[str]) -> str:
    """A path as a user writes it, with home folders in the place of `~` and `~user`.

    Raises:
        InputError: there is no such user.
    """
    text = os.path.expanduser(os.fspath(path))
    if text.startswith("~"):
        name = text.partition("/")[0]
        raise InputError(
            f"{text}: {name} is nobody's home folder; a name that begins with ~ is written ./{text}"
        )
    return text


LocalPath = Annotated[str, local_path]
"""Of a config: the path of a file or folder here (or a word that stands in its place), by `local_path`."""


def partial_path(path: Path) -> Path:
    """Where what will be `path` is made; what a killed process left there is replaced."""
    return path.with_name(f".{path.name}.partial")


def write_whole(path: Path, text: str) -> None:
    """Puts `text` in the place of what `path` held.

    Raises InputError when the disk is full; then `path` is as it was.
    """
    content = text.encode()
    try:
        with NewFiles() as files:
            files.open(path).write(content)
    except OSError as error:
        full = disk_full_error(error, path.parent, len(content), str(path), "It is as it was.")
        if full is None:
            raise
        raise full from error


class NewFiles:
    """Files that belong together: they get their names when the block ends well, and are gone if it raises.

    They appear in the order in which they were opened, and the old ones but the first go before: of an old
    and a new file no reader makes a pair.
    """

    def __init__(self, *, contended: bool = False):
        """`contended`: other processes may make the same files meanwhile; the last one's stay."""
        self._mark = f".{os.getpid()}" if contended else ""
        self._files: dict[Path, Any] = {}

    def open(self, path: Path, *, buffering: int = -1) -> Any:
        """A binary file to write, which will be `path`."""
        self._files[path] = file = open(self._partial(path), "wb", buffering=buffering)  # noqa: SIM115
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
            return
        published = []
        try:
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            for path in list(self._files)[1:]:
                path.unlink(missing_ok=True)
            for path in self._files:
                published.append(self._partial(path).rename(path))
        except BaseException:
            self.discard()
            for path in published:
                path.unlink(missing_ok=True)
            raise

    def discard(self) -> None:
        """Removes what has been written."""
        for path, file in self._files.items():
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                self._partial(path).unlink(missing_ok=True)

    def _partial(self, path: Path) -> Path:
        return partial_path(path.with_name(path.name + self._mark))


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill, which appears as `path` when the block ends well and is removed when it raises.

    One process of a run enters this.

    Raises InputError when `path` exists and is not an empty folder, or cannot be made.
    """
    folder = Path(local_path(path)).resolve()
    partial = make_room(folder)
    try:
        partial.mkdir()
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.filename}: {error.strerror}.") from error
    try:
        yield partial
        publish_folder(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def make_room(folder: Path) -> Path:
    """Where a folder can be made that will be `folder`: nothing is there.

    Raises InputError when `folder` exists and is not an empty folder, or its parent cannot be made.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder: give the name of a new one.")
    if os.path.ismount(folder) or folder == Path.cwd():
        raise InputError(
            f"{folder} cannot be replaced, as it is a mount point or the current folder: give the name of a "
            "new folder inside it."
        )
    partial = partial_path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(partial):  # of a process that was killed
            remove(partial)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.filename}: {error.strerror}.") from error
    return partial


def remove(path: Path) -> None:
    """Removes a file, a folder with all that is in it, or of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def publish_folder(folder: Path) -> None:
    """Gives what was made at `partial_path(folder)` its name, with all that is in it on the disk."""
    partial = partial_path(folder)
    flush_to_disk(partial)
    try:
        partial.rename(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}.") from error


def flush_to_disk(folder: Path) -> None:
    """Has the kernel write out `folder` and its entry in its parent, so that a power cut finds it whole."""
    for root, _, files in os.walk(folder):
        for path in (*(os.path.join(root, file) for file in files), root):
            _fsync(path)
    _fsync(folder.parent)


def _fsync(path: str | os.PathLike[str]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


class InUseError(Exception):
    """Another one holds the lock; the text says who: process, host and since when."""


class FileLock:
    """An exclusive `flock` on a file, which the kernel frees when its holder dies, `kill -9` included.

    The file stays when the lock is freed and names its last holder. The lock belongs to the open file, not to
    the process: a second one on the same file is refused in the same process too. On a shared file system it
    holds across hosts (NFS, and Lustre mounted with `flock`).
    """

    def __init__(self, file: str | os.PathLike[str]):
        self.file = Path(file)
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self, timeout: float = 0.0) -> str | None:
        """Takes the lock, or says why this file system has none; then it counts as held.

        Raises InUseError when another one holds it after `timeout` seconds still.
        """
        if self.held:
            return None
        refusal = None
        deadline = time.monotonic() + timeout
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    holder = _holder(descriptor)
                    os.close(descriptor)
                    raise InUseError(holder) from None
                time.sleep(0.05)
            except OSError as error:
                refusal = error.strerror
                break
        self._descriptor = descriptor
        _held.add(self)
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        note = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": started}) + "\n"
        # A disk without a free block must not keep a run from being resumed: the note is a courtesy.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note.encode(), 0)
        return refusal

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)

    def __enter__(self) -> Self:
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


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_free_space(folder: Path, needed: int, what: str, advice: str = "Free some space.") -> None:
    """Raises InputError when the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{what} needs {readable_gigabytes(needed)} in {folder}, and the disk has "
            f"{readable_gigabytes(free)} free. {advice}"
        )


def disk_full_error(
    error: BaseException, folder: Path, needed: int | None, what: str, spared: str = ""
) -> InputError | None:
    """The sentence for a write that the disk, a quota or a file-size limit refused, or None.

    `error` may be what a library made of it. `needed`: bytes, if that is known. `spared` is said at
    the end: what is as it was.
    """
    # As tensorstore puts it, and libraries in Rust.
    codes = [text for code in _FULL for text in (f"os_error_code='{code}'", f"(os error {code})")]
    seen: BaseException | None = error
    while seen is not None:
        refused = isinstance(seen, OSError) and seen.errno in _FULL
        if refused or any(code in str(seen) for code in codes):
            reason = str(seen).rpartition(": ")[2].partition(" [")[0]
            if isinstance(seen, OSError) and seen.strerror:
                reason = seen.strerror
            free = readable_gigabytes(shutil.disk_usage(folder).free)
            has = f"The disk of {folder} has {free} free."
            if needed is not None:
                has = f"It needs {readable_gigabytes(needed)} in {folder}, and the disk has {free} free."
            return InputError(f"{what} could not be written: {reason}. {has} {spared}".rstrip())
        seen = seen.__cause__ or seen.__context__
    return None
