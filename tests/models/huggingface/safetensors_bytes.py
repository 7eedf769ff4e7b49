"""Safetensors files with any header, true or not."""

import json
from pathlib import Path


def write_raw(path: Path, header, data: bytes = b"", length: int | None = None) -> None:
    """A safetensors file with just this header, true or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def entry(begin, end, shape=(2,), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


GOOD = {"a": entry(0, 8), "b": entry(8, 16)}
