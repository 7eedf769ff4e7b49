"""Safetensors files, written tensor by tensor."""

import contextlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import Shaped

from mjx.errors import InputError
from mjx.files import NewFiles, check_free_space, disk_full_error
from mjx.models.huggingface.safetensors_header import METADATA, Entry, write_header

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_CHUNK = 1 << 24
"""Bytes copied at once of an array that does not lie in memory as it will in the file."""
_COLUMNS = 16
"""Copied at once of those: whole rows of a transposed array touch more lines than a cache holds."""


class TensorWriter:
    """Writes tensors of known sizes into `folder`: as model.safetensors, or as shards and their index.

    A shard takes the tensors in the order of `sizes` until the next one would make it larger than
    `max_shard_bytes`. They are written in any order, each straight to its place, so that nothing waits in
    memory. The files get their names when the `with` block ends; when it ends in an exception, they are gone.

    Raises InputError when the folder does not exist, cannot be written or holds weights already, when the
    disk is full, and for a dtype or a name that the format does not have.
    """

    def __init__(
        self,
        folder: Path,
        sizes: Mapping[str, tuple[tuple[int, ...], np.dtype]],
        max_shard_bytes: int = 5_000_000_000,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """`metadata` is the files' own; {"format": "pt"} by default, without which transformers does not
        know how to read them."""
        if METADATA in sizes:
            raise InputError(f"No tensor can be named {METADATA} in a safetensors file.")
        self._folder = folder
        self._sizes = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in sizes.items()}
        self._shards = _shards(self._sizes, max_shard_bytes)
        self._metadata = {"format": "pt"} if metadata is None else metadata
        self._missing = set(self._sizes)
        self._files = NewFiles()
        self._places: dict[str, tuple[io.FileIO, Entry]] = {}

    def __enter__(self) -> Self:
        plans = {
            shard: write_header({name: self._sizes[name] for name in names}, self._metadata)
            for shard, names in self._shards.items()
        }
        try:
            with self._writing():
                for name in sorted(os.listdir(self._folder)):
                    if name.endswith((".safetensors", INDEX)):
                        raise InputError(f"{self._folder} holds weights already: {name}.")
                needed = sum(len(start) for start, _ in plans.values()) + _total(self._sizes)
                check_free_space(self._folder, needed, "A copy of the weights")
                for shard, (start, entries) in plans.items():
                    file = self._files.open(self._folder / shard, buffering=0)
                    _write_at(file, start, 0)
                    self._places |= {name: (file, entry) for name, entry in entries.items()}
        except BaseException:
            self._files.discard()
            raise
        return self

    def write(self, name: str, array: Shaped[np.ndarray, "..."]) -> None:
        """Writes one tensor, of the shape and dtype that `sizes` gives it. Several threads may write."""
        if name not in self._missing:
            raise ValueError(f"{name} {'is written twice' if name in self._sizes else 'has no size'}")
        if (array.shape, array.dtype) != self._sizes[name]:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, and should be {self._sizes[name]}")
        self._missing.remove(name)
        file, entry = self._places[name]
        position = entry.begin
        with self._writing():
            for part in _contiguous_parts(array):
                _write_at(file, part.reshape(-1).view(np.uint8).data, position)
                position += part.nbytes

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._files.discard()
            return
        with self._writing(), self._files:
            if self._missing:
                raise ValueError(f"never written: {', '.join(sorted(self._missing))}")
            if len(self._shards) > 1:
                _write_at(self._files.open(self._folder / INDEX, buffering=0), self._index(), 0)

    def _index(self) -> bytes:
        shard_of = {name: shard for shard, names in self._shards.items() for name in names}
        index = {"metadata": {"total_size": _total(self._sizes)}, "weight_map": shard_of}
        return (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns what the file system refuses into an InputError."""
        try:
            yield
        except OSError as error:
            if full := disk_full_error(error, self._folder, _total(self._sizes), "A copy of the weights"):
                raise full from error
            raise InputError(f"Weights cannot be written to {self._folder}: {error.strerror}.") from error


def _bytes(size: tuple[tuple[int, ...], np.dtype]) -> int:
    shape, dtype = size
    return math.prod(shape) * dtype.itemsize


def _total(sizes: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> int:
    return sum(map(_bytes, sizes.values()))


def _shards(
    sizes: Mapping[str, tuple[tuple[int, ...], np.dtype]], max_shard_bytes: int
) -> dict[str, list[str]]:
    """File name → the tensors in it."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + _bytes(size) > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += _bytes(size)
    if len(shards) == 1:
        return {WHOLE: shards[0]}
    return {
        f"model-{number:05d}-of-{len(shards):05d}.safetensors": names
        for number, names in enumerate(shards, 1)
    }


def _contiguous_parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array in C order, copied a part at a time where it does not lie in memory like that."""
    if array.flags.c_contiguous:
        yield array
    elif array.nbytes <= _CHUNK:
        copy = np.empty(array.shape, array.dtype)
        for first in range(0, array.shape[-1], _COLUMNS):
            copy[..., first : first + _COLUMNS] = array[..., first : first + _COLUMNS]
        yield copy
    else:
        rows = max(1, _CHUNK // (array.nbytes // len(array)))
        for first in range(0, len(array), rows):
            part = array[first : first + rows]
            yield from _contiguous_parts(part[0] if len(part) == 1 else part)


def _write_at(file: io.FileIO, data: bytes | memoryview, position: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(file.fileno(), rest, position)
        rest, position = rest[count:], position + count
