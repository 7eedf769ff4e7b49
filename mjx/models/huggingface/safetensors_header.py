"""The header of a safetensors file: what lies where in it, believed only as far as the file bears it out.

A file is: u64 length of the header (little-endian); the header, a JSON object with name → dtype, shape and
data_offsets (begin, end), and strings under `__metadata__`; then the tensors' bytes in C order, which follow
one another without a gap from offset 0 to the end of the file.

The `safetensors` library writes the same bytes. It does not serve here: for numpy it cannot make float8
arrays, a slice of columns brings the whole tensor into memory (memory-mapped or not), and it writes only a
file whose tensors are all in memory at once.
"""

import dataclasses
import io
import json
import math
import os
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from mjx.errors import InputError
from mjx.models.interop.stored_file import fill, parse_object

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "C64": np.dtype(np.complex64),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
"""Name in the format → dtype, in the format's order. Its 4- and 6-bit types are missing: numpy has none."""

METADATA = "__metadata__"

_MAX_LENGTH = 100_000_000
"""Bytes of the longest header that the library reads."""

_MAX_RANK = 64
"""Of a numpy array."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """Where one tensor lies."""

    shape: tuple[int, ...]
    dtype: np.dtype
    begin: int
    """Its first byte, counted from the first byte of the file."""

    @property
    def end(self) -> int:
        return self.begin + math.prod(self.shape) * self.dtype.itemsize


def read_header(file: io.FileIO) -> dict[str, Entry]:
    """The tensors in a file, in the order of their bytes.

    Raises InputError, naming the file and the tensor, when the header is none, or does not fit the file.
    """
    path, size = file.name, os.fstat(file.fileno()).st_size
    if size < 8:
        raise InputError(f"{path} has {size} bytes, too few for a safetensors file: it is truncated.")
    start = bytearray(8)
    fill(start, file, 0)
    length = int.from_bytes(start, "little")
    if length > size - 8:
        raise InputError(
            f"{path} has {size} bytes, but its header should have {length}: it is truncated, or not a "
            "safetensors file."
        )
    if length > _MAX_LENGTH:
        raise InputError(f"{path} has a header of {length} bytes; the format allows {_MAX_LENGTH}.")
    text = bytearray(length)
    fill(text, file, 8)
    header = parse_object(text, f"The header of {path}")
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(f"The header of {path} has a {METADATA} that is not an object with strings.")
    entries = {name: _entry(f"{path}: tensor {name!r}", value, 8 + length) for name, value in header.items()}
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_layout(entries, path, 8 + length, size)
    return entries


def _entry(what: str, value: object, data: int) -> Entry:
    """One tensor's part of the header, where `data` is the first byte after the header."""
    match value:
        case {"dtype": str(name), "shape": list(shape), "data_offsets": [begin, end]}:
            pass
        case _:
            raise InputError(f"{what} is not described by a dtype, a shape and two data_offsets.")
    if name not in DTYPES:
        raise InputError(f"{what} has the dtype {name!r}, which is unknown; known are {', '.join(DTYPES)}.")
    dtype = DTYPES[name]
    if len(shape) > _MAX_RANK or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise InputError(f"{what} has the shape {shape}, which is not a list of at most {_MAX_RANK} sizes.")
    if math.prod(max(extent, 1) for extent in shape) * dtype.itemsize >= 1 << 63:
        raise InputError(f"{what} has the shape {shape}, which is more than a file can hold.")
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        raise InputError(f"{what} has the data_offsets {[begin, end]}, which are not a beginning and an end.")
    entry = Entry(shape=tuple(shape), dtype=dtype, begin=data + begin)
    if entry.end != data + end:
        raise InputError(
            f"{what} has the data_offsets {[begin, end]}, so {end - begin} bytes, but its shape {shape} and "
            f"dtype {name} make {entry.end - entry.begin}."
        )
    return entry


def _check_layout(entries: Mapping[str, Entry], path: str, data: int, size: int) -> None:
    """That the tensors, sorted, cover the bytes from `data` to `size`, and none twice."""
    position, previous = data, None
    for name, entry in entries.items():
        if entry.begin < position:
            raise InputError(
                f"{path}: tensor {name!r} begins at byte {entry.begin}, within tensor {previous!r}, which "
                f"ends at byte {position}."
            )
        if entry.begin > position:
            raise InputError(
                f"{path}: {entry.begin - position} bytes before tensor {name!r} belong to no tensor."
            )
        if entry.end > size:
            raise InputError(
                f"{path} has {size} bytes, but tensor {name!r} ends at byte {entry.end}: it is truncated."
            )
        position, previous = entry.end, name
    if position < size:
        raise InputError(
            f"{path} has {size - position} bytes after its last tensor that belong to no tensor."
        )


def write_header(
    sizes: Mapping[str, tuple[tuple[int, ...], np.dtype]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, Entry]]:
    """The first bytes of a file with tensors of these shapes and dtypes, and where they lie in it.

    Raises InputError for a dtype that the format does not have.
    """
    ranks = {dtype: (rank, name) for rank, (name, dtype) in enumerate(DTYPES.items())}
    for name, (_, dtype) in sizes.items():
        if dtype not in ranks:
            raise InputError(f"Tensor {name!r} has the dtype {dtype}, which safetensors files do not have.")
    # The widest first, so that each begins at a multiple of its item size: torch's readers rely on it.
    order = sorted(sizes, key=lambda name: (-ranks[sizes[name][1]][0], name.encode()))
    header: dict[str, object] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    begins, position = {}, 0
    for name in order:
        shape, dtype = sizes[name]
        begins[name], begin = position, position
        position += math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": ranks[dtype][1], "shape": list(shape), "data_offsets": [begin, position]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = len(text).to_bytes(8, "little") + text
    return start, {
        name: Entry(shape=sizes[name][0], dtype=sizes[name][1], begin=len(start) + begin)
        for name, begin in begins.items()
    }
