"""torch_dist checkpoints of any content, written without torch."""

import contextlib
import dataclasses
import io
import math
import pickle
import sys
import types
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np

_CHECKPOINT = "torch.distributed.checkpoint"


def _named(module: str, name: str) -> type:
    return type(name, (), {"__module__": module, "__qualname__": name})


_CLASSES = {
    name: _named(f"{_CHECKPOINT}.{module}", name)
    for module, names in {
        "metadata": (
            "Metadata",
            "TensorStorageMetadata",
            "TensorProperties",
            "ChunkStorageMetadata",
            "MetadataIndex",
        ),
        "filesystem": ("_StorageInfo",),
    }.items()
    for name in names
}
_STORAGES = {
    "float64": _named("torch", "DoubleStorage"),
    "float32": _named("torch", "FloatStorage"),
    "float16": _named("torch", "HalfStorage"),
}
_DTYPES = {name: _named("torch", name) for name in (*_STORAGES, "int64")}


def _rebuild_tensor_v2():
    """Stands for torch's own, in pickles."""


_rebuild_tensor_v2.__module__ = "torch._utils"


@contextlib.contextmanager
def _as_if_torch():
    """Lets these classes be pickled under torch's names."""
    modules: dict[str, types.ModuleType] = {}
    for each in (*_CLASSES.values(), *_STORAGES.values(), *_DTYPES.values(), _rebuild_tensor_v2):
        module = modules.setdefault(each.__module__, types.ModuleType(each.__module__))
        setattr(module, each.__name__, each)
    with mock.patch.dict(sys.modules, modules):
        yield


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.id if isinstance(value, _Storage) else None


@dataclasses.dataclass
class _Storage:
    id: tuple


class _Tensor:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return _rebuild_tensor_v2, self.arguments


def _record(name: str, state):
    record = _CLASSES[name]()
    if isinstance(state, tuple):  # as torch's own __getstate__ gives it
        class_ = _CLASSES[name]
        record = type("_", (), {"__reduce__": lambda self: (class_, (), state)})()
    else:
        record.__dict__.update(state)
    return record


def torch_save(array: np.ndarray) -> bytes:
    """What torch.save makes of a tensor with these strides."""
    base = array if array.flags.c_contiguous else array.T
    assert base.flags.c_contiguous
    storage = _Storage(("storage", _STORAGES[array.dtype.name], "0", "cpu", array.size))
    strides = tuple(stride // array.itemsize for stride in array.strides)
    described = io.BytesIO()
    with _as_if_torch():
        _Pickler(described, 2).dump(_Tensor(storage, 0, array.shape, strides, False, {}))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", described.getvalue())
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", base.tobytes())
    return out.getvalue()


def write(
    folder: Path,
    tensors: dict[str, dict[tuple[int, ...], np.ndarray]],
    *,
    dtype: str | None = None,
    file: str = "__0_0.distcp",
    shape: tuple[int, ...] | None = None,
    **info,
) -> Path:
    """A checkpoint of tensors, each given as its chunks by where they start.

    `dtype` and `shape` are told of every tensor, true or not; `info` is added to what is told of chunks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries, stored, content = {}, {}, bytearray()
    for name, chunks in tensors.items():
        size = tuple(
            max(start[axis] + chunk.shape[axis] for start, chunk in chunks.items())
            for axis in range(next(iter(chunks.values())).ndim)
        )
        kind = _DTYPES[dtype or next(iter(chunks.values())).dtype.name]
        entries[name] = _record(
            "TensorStorageMetadata",
            {
                "properties": _record("TensorProperties", (kind, None, False, None, False)),
                "size": shape or size,
                "chunks": [
                    _record("ChunkStorageMetadata", {"offsets": start, "sizes": chunk.shape})
                    for start, chunk in chunks.items()
                ],
            },
        )
        for start, chunk in chunks.items():
            saved = torch_save(chunk)
            place = {"relative_path": file, "offset": len(content), "length": len(saved)}
            index = _record("MetadataIndex", {"fqn": name, "offset": start, "index": None})
            stored[index] = _record("_StorageInfo", place | info)
            content += saved
    if "/" not in file:
        (folder / file).write_bytes(content)
    metadata = {"state_dict_metadata": entries, "planner_data": None, "storage_data": stored}
    with _as_if_torch():
        (folder / ".metadata").write_bytes(pickle.dumps(_record("Metadata", metadata), 4))
    return folder


def cut(array: np.ndarray, *pieces: int) -> dict[tuple[int, ...], np.ndarray]:
    """An array as chunks: so many equal pieces along each axis."""
    sizes = [extent // count for extent, count in zip(array.shape, pieces, strict=True)]
    chunks = {}
    for flat in range(math.prod(pieces)):
        place = np.unravel_index(flat, pieces)
        start = tuple(int(p) * size for p, size in zip(place, sizes, strict=True))
        box = tuple(slice(first, first + size) for first, size in zip(start, sizes, strict=True))
        chunks[start] = np.ascontiguousarray(array[box])
    return chunks
