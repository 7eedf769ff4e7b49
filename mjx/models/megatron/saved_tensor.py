"""One value as torch.save wrote it, within a larger file, read without torch.

It is a ZIP archive with nothing compressed: `data.pkl` says what the value is, `data/0` holds a tensor's
numbers. These are read from where they lie, so that a part of a tensor takes the memory of that part.
"""

import dataclasses
import io
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from mjx.errors import InputError
from mjx.models.interop.stored_file import fill
from mjx.models.interop.strided_read import read_box
from mjx.models.interop.tensor_layout import Shape
from mjx.models.megatron.inert_pickle import Record, origin, read_pickle

_LOCAL_HEADER = 30
"""Bytes of a ZIP entry's own header, before its name."""

_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
)
"""What the standard library raises when an archive is damaged or uses what it does not know."""

_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
}


@dataclasses.dataclass(frozen=True)
class SavedTensor:
    """Where the numbers of a saved tensor lie in a file."""

    begin: int
    """Of the first of them, in bytes."""
    end: int
    """Of the storage that they are part of."""
    shape: Shape
    strides: Shape
    """In items."""
    dtype: np.dtype

    def read(self, part: Shaped[np.ndarray, "..."], file: io.FileIO, start: Shape) -> None:
        """Fills `part`, not empty and in C order, from the index `start` on."""
        contiguous = tuple(math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))
        if self.strides == contiguous:
            read_box(part, file, self.begin, self.shape, start)
            return
        storage = bytearray(self.end - self.begin)  # transposed: seldom, and then whole
        fill(storage, file, self.begin)
        strides = tuple(stride * self.dtype.itemsize for stride in self.strides)
        whole = np.ndarray(self.shape, self.dtype, storage, strides=strides)
        part[...] = whole[
            tuple(slice(first, first + size) for first, size in zip(start, part.shape, strict=True))
        ]


def find_tensor(file: io.FileIO, offset: int, length: int, dtype: np.dtype, what: str) -> SavedTensor:
    """The tensor of type `dtype` that torch.save wrote into these bytes of a file.

    Raises InputError, about `what`, when there is none, or when the file is damaged or shortened.
    """
    with _archive(file, offset, length, what) as archive:
        value = _pickled(archive, what)
        if not isinstance(value, Record) or origin(value) != "torch._utils._rebuild_tensor_v2":
            raise InputError(f"{what} is not a dense tensor, but {origin(value) or type(value).__name__}.")
        try:
            (_, kind, key, _, _), first, shape, strides = value.args[:4]
            sound = all(isinstance(n, int) and n >= 0 for n in (first, *shape, *strides))
            if not sound or len(shape) != len(strides):
                raise ValueError("odd sizes")
            entry = archive.getinfo(f"{_root(archive)}/data/{key}")
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{what} is damaged: its description makes no sense ({error}).") from error
        if _STORAGES.get(origin(kind)) != dtype.name:
            raise InputError(f"{what} is damaged: it holds {origin(kind)}, but .metadata says {dtype}.")
        begin = offset + entry.header_offset + _data_offset(file, offset + entry.header_offset)
    end = begin + entry.file_size
    last = first + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1
    if entry.compress_type != zipfile.ZIP_STORED or end > offset + length:
        raise InputError(f"{what} is damaged: its numbers do not lie where it says.")
    if math.prod(shape) and last * dtype.itemsize > entry.file_size:
        raise InputError(f"{what} is damaged: {entry.file_size} bytes do not hold {list(shape)} {dtype}s.")
    return SavedTensor(begin + first * dtype.itemsize, end, tuple(shape), tuple(strides), dtype)


def read_saved(path: Path) -> Any:
    """What torch.save wrote as the file `path`, tensors as records; see `read_pickle`.

    Raises InputError when it is damaged.
    """
    with open(path, "rb", buffering=0) as file:
        length = os.fstat(file.fileno()).st_size
        with _archive(file, 0, length, str(path)) as archive:
            return _pickled(archive, str(path))


class _Range:
    """Some bytes of a file, as the file that a ZIP archive is read from."""

    def __init__(self, file: io.FileIO, offset: int, length: int) -> None:
        self._file, self._offset, self._length, self._position = file, offset, length, 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise OSError("a position before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int = -1) -> bytes:
        rest = max(0, self._length - self._position)
        data = bytearray(rest if count < 0 else min(count, rest))
        fill(data, self._file, self._offset + self._position)
        self._position += len(data)
        return bytes(data)


def _archive(file: io.FileIO, offset: int, length: int, what: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(_Range(file, offset, length))  # type: ignore[arg-type]
    except _BROKEN_ARCHIVE as error:
        raise InputError(f"{what} is not what torch.save writes, or damaged: {error}.") from error


def _root(archive: zipfile.ZipFile) -> str:
    """The folder in which everything lies: `archive`, or the file's name."""
    return archive.namelist()[0].partition("/")[0] if archive.namelist() else ""


def _pickled(archive: zipfile.ZipFile, what: str) -> Any:
    """What data.pkl says."""
    root = _root(archive)
    try:
        order = f"{root}/byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise InputError(f"{what} was written on a big-endian machine, which mjx does not read.")
        data = archive.read(f"{root}/data.pkl")
    except _BROKEN_ARCHIVE as error:
        raise InputError(f"{what} is not what torch.save writes, or damaged: {error}.") from error
    return read_pickle(data, what)


def _data_offset(file: io.FileIO, header: int) -> int:
    """Bytes from a ZIP entry's own header to its data."""
    raw = bytearray(_LOCAL_HEADER)
    fill(raw, file, header)
    name, extra = struct.unpack_from("<HH", raw, 26)
    return _LOCAL_HEADER + name + extra
