"""Folders that are built once, whoever asks first, and never seen half built."""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mjx.errors import InputError
from mjx.files import FileLock, InUseError, flush_to_disk


def build_once(
    folder: str | os.PathLike[str], build: Callable[[Path], None], timeout: float = 3600.0
) -> Path:
    """Returns `folder`; if it is not there yet, `build` fills a temporary folder which then takes its name.

    Processes that ask at the same time wait for the one that builds, at most `timeout` seconds. The lock is a
    kernel's (flock) and dies with its holder; where a file system has no locks each process builds its own
    and the first rename wins, which costs time but is as safe.

    Raises:
        InputError: the folder's parent cannot be written to.
        TimeoutError: another process still builds after `timeout` seconds.
    """
    folder = Path(folder)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Not `new_folder`: several may ask, one that came second is as content with the first one's folder,
        # and where there are no locks each needs a folder of its own to build in.
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        temporary.mkdir()
    except OSError as error:
        raise InputError(f"cache_dir: cannot write into {folder.parent} ({error.strerror}).") from error
    try:
        with _locked(folder, timeout):
            if not folder.is_dir():
                build(temporary)
                flush_to_disk(temporary)
                # Only without locks can another process have been first: then its folder is as good.
                try:
                    temporary.rename(folder)
                except OSError:
                    if not folder.is_dir():
                        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def cached_arrays(
    cache_dir: str | os.PathLike[str],
    kind: str,
    key: Mapping[str, Any],
    build: Callable[[], Mapping[str, np.ndarray]],
    timeout: float = 3600.0,
) -> dict[str, np.ndarray]:
    """The arrays that `build` returns, built once per `key` and from then on mapped into memory.

    Args:
        cache_dir: Where the folder KIND-<hash of the key> is kept.
        kind: What the arrays are.
        key: All that the arrays depend on.
        build: Makes the arrays.
        timeout: Seconds to wait for another process that builds them.
    """
    text = json.dumps(dict(key), indent=2, sort_keys=True)

    def write(folder: Path) -> None:
        for name, array in build().items():
            np.save(folder / f"{name}.npy", array)
        (folder / "description.json").write_text(text)

    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    folder = build_once(Path(cache_dir) / f"{kind}-{digest}", write, timeout)
    return {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}


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
