"""Checkpoint folders in Megatron-Core's format torch_dist, read in parts and without torch.

`.metadata` names every tensor and the chunks that the ranks of the run that wrote it cut it into; a chunk is
some bytes of a `.distcp` file. `common.pt` holds what is no tensor, such as the arguments of the run.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from mjx.errors import InputError
from mjx.files import local_path
from mjx.models.interop.stored_file import fill, open_file, read_object
from mjx.models.interop.tensor_layout import Index, Shape, Tensor
from mjx.models.megatron.inert_pickle import Record, origin, read_pickle
from mjx.models.megatron.saved_tensor import SavedTensor, find_tensor, read_saved

METADATA = ".metadata"
CONFIG = "metadata.json"
COMMON = "common.pt"
NEWEST = "latest_checkpointed_iteration.txt"

_METADATA_CLASSES = "torch.distributed.checkpoint.metadata."


class TorchDistFolder(Mapping[str, Tensor]):
    """Name → tensor of the checkpoint in a folder, or of the newest one below it in Megatron-LM's layout.

    Only the metadata is read here; the sizes of the files are looked at.

    Args:
        path: The folder.
        wanted: Which tensors to have, by name; the files of others may be missing.

    Raises:
        InputError: there is no such checkpoint, or it is of another format, incomplete or damaged.
    """

    path: Path
    """Where the checkpoint itself is."""

    def __init__(self, path: str | os.PathLike[str], wanted: Callable[[str], bool] = lambda name: True):
        self.path = _find_checkpoint(Path(local_path(path)))
        self._tensors = {name: tensor for name, tensor in _read_metadata(self.path).items() if wanted(name)}
        _check_files(self.path, self._tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @functools.cached_property
    def _common(self) -> dict[str, Any]:
        path = self.path / COMMON
        value = read_saved(path) if path.is_file() else {}
        return value if isinstance(value, dict) else {}

    @property
    def arguments(self) -> dict[str, Any]:
        """The command line of the training run; empty where the checkpoint does not hold it. Values that are
        no plain ones stand as their type's or function's full name.

        Raises InputError when common.pt is damaged.
        """
        found: Any = self._common.get("args")
        known = isinstance(found, Record) and origin(found) == "argparse.Namespace"
        if not known or not isinstance(found.state, dict):
            return {}
        return {name: origin(value) or value for name, value in found.state.items()}

    @property
    def iteration(self) -> int | None:
        """After how many steps it was written, where it says so."""
        found = self._common.get("iteration")
        return found if isinstance(found, int) else None


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """A box of a tensor."""

    start: Shape
    shape: Shape
    file: Path
    offset: int
    length: int
    what: str

    def overlap(self, box: list[range]) -> list[range]:
        """What of the box is in the chunk, in the tensor's indices."""
        return [
            range(max(asked.start, first), min(asked.stop, first + size))
            for asked, first, size in zip(box, self.start, self.shape, strict=True)
        ]


class _ChunkedTensor:
    """A tensor of which every chunk is read by itself."""

    def __init__(self, name: str, shape: Shape, dtype: str, chunks: list[_Chunk], where: Path) -> None:
        self.name, self.shape, self.chunks = name, shape, chunks
        self._dtype, self._where = dtype, where
        self._found: dict[_Chunk, SavedTensor] = {}
        inside = all(
            len(chunk.start) == len(chunk.shape) == len(shape)
            and all(0 <= a <= a + n <= s for a, n, s in zip(chunk.start, chunk.shape, shape, strict=True))
            for chunk in chunks
        )
        if not inside or sum(math.prod(chunk.shape) for chunk in chunks) != math.prod(shape):
            raise InputError(
                f"{where / METADATA}: the chunks of tensor {name} do not make up its shape, {list(shape)}"
            )

    @property
    def dtype(self) -> np.dtype:
        try:
            return jnp.dtype(self._dtype.removeprefix("torch."))
        except TypeError:
            raise InputError(
                f"{self._where}: tensor {self.name} holds {self._dtype} numbers, which mjx does not read"
            ) from None

    def read(self, index: Index = ()) -> Shaped[np.ndarray, "..."]:
        whole = (slice(None),) * (len(self.shape) - len(index))
        box = [range(extent)[part] for part, extent in zip((*index, *whole), self.shape, strict=True)]
        if any(each.step != 1 for each in box):
            raise ValueError(f"{index} has a step that is not 1")
        out = np.empty([len(each) for each in box], self.dtype)
        for chunk in self.chunks:
            overlap = chunk.overlap(box)
            if all(len(each) for each in overlap):
                self._read_chunk(out, chunk, overlap, box)
        return out

    def _read_chunk(self, out: np.ndarray, chunk: _Chunk, overlap: list[range], box: list[range]) -> None:
        with open_file(chunk.file) as file:
            saved = self._found.get(chunk)
            if saved is None:
                saved = find_tensor(file, chunk.offset, chunk.length, self.dtype, chunk.what)
                if saved.shape != chunk.shape:
                    raise InputError(
                        f"{chunk.what} is damaged: it has the shape {list(saved.shape)}, but {METADATA} says "
                        f"{list(chunk.shape)}"
                    )
                self._found[chunk] = saved
            start = tuple(each.start - first for each, first in zip(overlap, chunk.start, strict=True))
            place = [
                slice(each.start - asked.start, each.stop - asked.start)
                for each, asked in zip(overlap, box, strict=True)
            ]
            target = out[(*place, ...)]  # with the dots a view, even of a tensor without axes
            if target.flags.c_contiguous:
                saved.read(target, file, start)
            else:
                part = np.empty(target.shape, target.dtype)
                saved.read(part, file, start)
                target[...] = part


def _find_checkpoint(path: Path) -> Path:
    """The folder with `.metadata`: this one, or the one that Megatron-LM's tracker file names."""
    if not path.is_dir():
        raise InputError(f"There is no folder {path}.")
    tracker = path / NEWEST
    if not (path / METADATA).exists() and tracker.is_file():
        said = _read_text(tracker).strip()
        name = said if said == "release" else f"iter_{int(said):07d}" if said.isdecimal() else None
        if name is None or not (path / name).is_dir():
            raise InputError(f"{tracker} says {said[:40]!r}, but {path} has no such checkpoint.")
        path = path / name
    if (path / METADATA).is_file():
        _check_format(path)
        return path
    inner = sorted(str(found.parent) for found in path.glob(f"*/{METADATA}"))
    if inner:
        raise InputError(f"{path} is not a checkpoint, but holds some: give one of them, e.g. {inner[-1]}")
    if sorted(path.glob("mp_rank_*")):
        raise InputError(
            f"{path} is a checkpoint in Megatron-LM's old format, a pickle file per rank (mp_rank_00, …), "
            "which mjx does not read: load it in Megatron-LM and save it with --ckpt-format torch_dist."
        )
    raise InputError(
        f"{path} is not a checkpoint of Megatron-Core's format torch_dist: it has no {METADATA}."
    )


def _check_format(path: Path) -> None:
    if not (path / CONFIG).exists():
        return  # written by torch.distributed.checkpoint alone
    backend = read_object(path / CONFIG).get("sharded_backend")
    if backend != "torch_dist":
        raise InputError(f"{path} is a checkpoint of the format {backend!r}; mjx reads torch_dist.")


def _read_metadata(path: Path) -> dict[str, _ChunkedTensor]:
    with open_file(path / METADATA) as file:
        data = bytearray(os.fstat(file.fileno()).st_size)
        fill(data, file, 0)
    metadata = read_pickle(bytes(data), str(path / METADATA))
    if origin(metadata) != f"{_METADATA_CLASSES}Metadata":
        raise InputError(f"{path / METADATA} is not the metadata of torch.distributed.checkpoint.")
    try:
        return _tensors(path, metadata)
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path / METADATA} is damaged or of an unknown version: {error}.") from error


def _tensors(path: Path, metadata: Record) -> dict[str, _ChunkedTensor]:
    stored = {
        (index.fqn, index.state.get("offset")): info for index, info in (metadata.storage_data or {}).items()
    }
    tensors = {}
    for name, entry in metadata.state_dict_metadata.items():
        if origin(entry) != f"{_METADATA_CLASSES}TensorStorageMetadata":
            continue  # bytes, such as the state of a random number generator
        chunks = []
        for chunk in entry.chunks:
            info = stored.get((name, chunk.offsets)) or stored.get((name, None))
            if info is None:
                raise InputError(f"{path / METADATA} does not say where tensor {name} is stored.")
            if info.state.get("transform_descriptors"):
                raise InputError(
                    f"{path}: tensor {name} is compressed ({', '.join(info.transform_descriptors)}), which "
                    "mjx does not read."
                )
            if info.relative_path != os.path.basename(info.relative_path):
                raise InputError(
                    f"{path / METADATA} names {info.relative_path!r} for tensor {name}, which is outside its "
                    "folder."
                )
            numbers = (*chunk.offsets, *chunk.sizes, info.offset, info.length)
            if not all(isinstance(number, int) and number >= 0 for number in numbers):
                raise TypeError(f"it places tensor {name} at {numbers}")
            file = path / info.relative_path
            what = f"{file}, tensor {name} from {list(chunk.offsets)} on,"
            chunks.append(_Chunk(chunk.offsets, chunk.sizes, file, info.offset, info.length, what))
        properties = entry.properties.state
        dtype = origin(properties[0] if isinstance(properties, tuple) else properties["dtype"])
        tensors[name] = _ChunkedTensor(name, entry.size, dtype, chunks, path)
    return tensors


def _check_files(path: Path, tensors: Mapping[str, _ChunkedTensor]) -> None:
    """That every file is there and as long as its chunks need."""
    ends: dict[Path, tuple[int, str]] = {}
    for name, tensor in tensors.items():
        for chunk in tensor.chunks:
            ends[chunk.file] = max(ends.get(chunk.file, (0, "")), (chunk.offset + chunk.length, name))
    for file_path, (end, name) in ends.items():
        if not os.path.lexists(file_path):
            raise InputError(
                f"{path} is incomplete: {file_path.name}, which holds part of tensor {name}, is missing."
            )
        with open_file(file_path) as file:
            size = os.fstat(file.fileno()).st_size
        if size < end:
            raise InputError(
                f"{file_path} is truncated: it has {size} bytes, and tensor {name} ends at byte {end}."
            )


def _read_text(path: Path) -> str:
    with open_file(path) as file:
        text = bytearray(min(os.fstat(file.fileno()).st_size, 100))
        fill(text, file, 0)
    return text.decode("utf-8", errors="replace")
