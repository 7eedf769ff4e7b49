"""The tensors of a Hugging Face folder, read in parts."""

import contextlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import Shaped

from mjx.errors import InputError
from mjx.models.huggingface.safetensors_header import Entry, read_header
from mjx.models.huggingface.tensor_writer import INDEX, WHOLE
from mjx.models.interop.stored_file import open_file, read_object
from mjx.models.interop.strided_read import read_box
from mjx.models.interop.tensor_layout import Tensor

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class TensorFolder(Mapping[str, Tensor]):
    """Name → tensor of all the files of a checkpoint, which are open until the `with` block ends."""

    def __init__(self, files: contextlib.ExitStack, tensors: Mapping[str, Tensor]) -> None:
        self._files = files
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._files.close()


def open_tensors(path: Path) -> TensorFolder:
    """The tensors of the folder `path`: of model.safetensors, or of the shards that its index names, or of
    its only safetensors file. Every header is read and checked, and not one tensor.

    Raises InputError, naming the file and the tensor, when there are no such files, or when they are
    truncated, damaged, or do not fit one another.
    """
    if not path.is_dir():
        raise InputError(f"There are no weights in {path}: no such folder.")
    expected = None
    if os.path.lexists(path / WHOLE):
        files = [path / WHOLE]
    elif os.path.lexists(path / INDEX):
        expected = _read_index(path / INDEX)
        files = list(dict.fromkeys(path / shard for shard in expected.values()))
    else:
        files = [_only_file(path)]
    with contextlib.ExitStack() as opened:
        tensors: dict[str, _StoredTensor] = {}
        for file_path in files:
            file = opened.enter_context(open_file(file_path))
            for name, entry in read_header(file).items():
                if name in tensors:
                    raise InputError(
                        f"{tensors[name].file.name} and {file_path} both hold a tensor {name!r}."
                    )
                tensors[name] = _StoredTensor(file, entry)
        if expected is not None:
            _check_index(path, expected, tensors)
        return TensorFolder(opened.pop_all(), tensors)


def _read_index(index: Path) -> dict[str, str]:
    """Tensor → shard, each of which is a path within the folder that leads to a file."""
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise InputError(f"{index} has no weight_map, an object with the file of each tensor.")
    for name, shard in shards.items():
        parts = PurePosixPath(shard)
        if parts.is_absolute() or ".." in parts.parts:
            raise InputError(f"{index} names {shard!r} for tensor {name!r}, which is outside its folder.")
        if not os.path.lexists(index.parent / shard):
            raise InputError(f"{index} names {shard!r} for tensor {name!r}, and there is no such file.")
    return shards


def _check_index(path: Path, expected: Mapping[str, str], tensors: Mapping[str, "_StoredTensor"]) -> None:
    """That index and shards speak of the same tensors, in the same files."""
    for name, shard in expected.items():
        if name not in tensors or tensors[name].file.name != str(path / shard):
            raise InputError(
                f"{path / INDEX} names {shard!r} for tensor {name!r}, which that file does not hold."
            )
    for name, tensor in tensors.items():
        if name not in expected:
            raise InputError(f"{tensor.file.name} holds a tensor {name!r}, which {INDEX} does not name.")


def _only_file(path: Path) -> Path:
    """The one safetensors file of a folder that has neither the usual one nor an index."""
    names = sorted(os.listdir(path))
    found = [name for name in names if name.endswith(".safetensors") and not name.startswith(".")]
    if not found:
        if pickles := [name for name in names if name.endswith(_PICKLES)]:
            raise InputError(
                f"{path} holds its weights only as pickle files ({', '.join(pickles)}), which can run code "
                "when they are read, so mjx does not read them: convert them to safetensors first."
            )
        raise InputError(f"There are no weights in {path}: neither {WHOLE} nor {INDEX}.")
    if len(found) > 1:
        raise InputError(f"{path} holds several safetensors files ({', '.join(found)}), but no {INDEX}.")
    if (shard := re.search(r"-of-(\d+)\.safetensors$", found[0])) and int(shard[1]) > 1:
        raise InputError(f"{path} holds one shard, {found[0]}, of {int(shard[1])}, and no {INDEX}.")
    return path / found[0]


class _StoredTensor:
    """A tensor in an open file."""

    def __init__(self, file: io.FileIO, entry: Entry) -> None:
        self.shape = entry.shape
        self.dtype = entry.dtype
        self.file = file
        self._begin = entry.begin

    def read(self, index: tuple[slice, ...] = ()) -> Shaped[np.ndarray, "..."]:
        if len(index) > len(self.shape):
            raise ValueError(f"{len(index)} slices of a tensor with the shape {self.shape}")
        whole = (slice(None),) * (len(self.shape) - len(index))
        ranges = [range(extent)[part] for part, extent in zip((*index, *whole), self.shape, strict=True)]
        if any(each.step != 1 for each in ranges):
            raise ValueError(f"{index} has a step that is not 1")
        part = np.empty([len(each) for each in ranges], self.dtype)
        if part.size:
            read_box(part, self.file, self._begin, self.shape, [each.start for each in ranges])
        return part
