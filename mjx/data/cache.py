"""Folders that are built once, whoever asks first, never seen half built, and built again when damaged."""

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mjx.errors import InputError
from mjx.files import FileLock, InUseError, disk_full_error, flush_to_disk

Opened = TypeVar("Opened")

DAMAGED = (OSError, EOFError, ValueError)
"""What reading a file that is gone or was cut raises; an `InputError` is a `ValueError`."""


def build_once(
    folder: str | os.PathLike[str],
    build: Callable[[Path], None],
    open_: Callable[[Path], Opened],
    timeout: float = 3600.0,
) -> Opened:
    """What `open_` makes of `folder`; if it is not there yet, `build` fills a temporary folder which then
    takes its name.

    A folder that `open_` cannot read (a file system that deletes old files leaves their folders) is built
    again, with a warning. Processes that ask at the same time wait for the one that builds, at most `timeout`
    seconds. The lock is a kernel's (flock) and dies with its holder; where a file system has no locks each
    process builds its own and the first rename wins, which costs time but is as safe.

    Raises:
        InputError: the folder's parent cannot be written to, or its disk is full.
        TimeoutError: another process still builds after `timeout` seconds.
    """
    folder = Path(folder)
    if folder.is_dir():
        with contextlib.suppress(*DAMAGED):
            return open_(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Not `new_folder`: several may ask, one that came second is as content with the first one's folder,
        # and where there are no locks each needs a folder of its own to build in.
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        temporary.mkdir()
    except OSError as error:
        raise InputError(f"data.cache_dir: cannot write into {folder.parent} ({error.strerror}).") from error
    try:
        with _locked(folder, timeout):
            damage = None
            if folder.is_dir():
                try:
                    return open_(folder)  # another process was first
                except DAMAGED as error:
                    damage = error
                    logging.getLogger("mjx").warning(
                        "the cache %s is damaged, and is built again (%s)", folder, error
                    )
            build(temporary)
            flush_to_disk(temporary)
            if damage is not None:
                _remove(folder)
            # Only without locks can another process have been first: then its folder is as good.
            try:
                temporary.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
        return open_(folder)
    except Exception as error:
        spared = "Nothing of it is left there; data.cache_dir may be on another disk."
        full = disk_full_error(error, folder.parent, None, f"The cache {folder}", spared)
        if full is None:
            raise
        raise full from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cached_arrays(
    cache_dir: str | os.PathLike[str],
    kind: str,
    key: Mapping[str, Any],
    names: Sequence[str],
    build: Callable[[], Mapping[str, np.ndarray]],
    timeout: float = 3600.0,
) -> dict[str, np.ndarray]:
    """The arrays that `build` returns, built once per `key` and from then on mapped into memory.

    Args:
        cache_dir: Where the folder KIND-<hash of the key> is kept.
        kind: What the arrays are.
        key: All that the arrays depend on.
        names: Of the arrays.
        build: Makes the arrays.
        timeout: Seconds to wait for another process that builds them.
    """
    text = json.dumps(dict(key), indent=2, sort_keys=True)

    def write(folder: Path) -> None:
        for name, array in build().items():
            save_array(folder / f"{name}.npy", array)
        (folder / "description.json").write_text(text, encoding="utf-8")

    def read(folder: Path) -> dict[str, np.ndarray]:
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}

    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return build_once(Path(cache_dir) / f"{kind}-{digest}", write, read, timeout)


def save_array(path: Path, array: np.ndarray) -> None:
    """The file that `np.save` makes; but its errors do not say that the disk is full."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def _remove(folder: Path) -> None:
    """Out of the way in one step; what another process still reads there stays until it is done."""
    away = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.damaged")
    folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, timeout: float) -> Iterator[None]:
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout)
    except InUseError as holder:
        raise TimeoutError(
            f"Another process ({holder}) holds {lock.file} for more than {timeout:.0f} s while it builds the "
            "cache; see whether it still works."
        ) from None
    with lock:
        yield
