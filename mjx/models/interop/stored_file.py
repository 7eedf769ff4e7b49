"""One file of a checkpoint: opened and read, or refused with the reason."""

import collections
import io
import json
import os
from pathlib import Path
from typing import Any

from mjx.errors import InputError

_GIT_LFS = b"version https://git-lfs"


def open_file(path: Path) -> io.FileIO:
    """The file, open for reading and unbuffered.

    Raises InputError when there is none, when it cannot be read, or when it is a Git LFS pointer.
    """
    if not os.path.isfile(path):
        if path.is_symlink():
            raise InputError(
                f"{path} is a link to {os.readlink(path)}, which does not exist: the download is incomplete."
            )
        raise InputError(f"{path} is not a file." if os.path.exists(path) else f"{path} does not exist.")
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115  # the caller closes it
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        start = bytearray(min(len(_GIT_LFS), os.fstat(file.fileno()).st_size))
        fill(start, file, 0)
        if start == _GIT_LFS:
            raise InputError(
                f"{path} is a Git LFS pointer, a few lines of text in place of the file: fetch the file "
                "itself, with `git lfs pull` or by another download."
            )
    except BaseException:
        file.close()
        raise
    return file


def fill(buffer: bytearray | memoryview, file: io.FileIO, position: int) -> None:
    """Reads the bytes of `file` from `position` on until `buffer` is full.

    Raises InputError when the file ends before that, or when the disk fails.
    """
    rest = memoryview(buffer)
    while rest:
        try:
            count = os.preadv(file.fileno(), [rest], position)
        except OSError as error:
            raise InputError(f"{file.name} cannot be read: {error.strerror}.") from error
        if not count:
            raise InputError(f"{file.name} ends at byte {position}, while it is being read: it is truncated.")
        rest, position = rest[count:], position + count


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds. Raises InputError where `open_file` and `parse_object` do."""
    with open_file(path) as file:
        text = bytearray(os.fstat(file.fileno()).st_size)
        fill(text, file, 0)
    return parse_object(text, str(path))


def parse_object(text: bytes | bytearray, what: str) -> dict[str, Any]:
    """The JSON object in `text`. Raises InputError, about `what`, when it is none or names a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            name, count = collections.Counter(name for name, _ in pairs).most_common(1)[0]
            raise InputError(f"{what} names {name!r} {count} times, so it is unclear which one is meant.")
        return found

    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"{what} is not a JSON object but a {type(value).__name__}.")
    return value
