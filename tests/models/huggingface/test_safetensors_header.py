"""Headers of safetensors files: what the library refuses is refused, with file, tensor and reason."""

import json
import os
import random
import time

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from safetensors_bytes import GOOD, entry, write_raw

from mjx.errors import InputError
from mjx.models.huggingface.safetensors_header import read_header
from mjx.models.huggingface.tensor_files import open_tensors

WHOLE = "model.safetensors"


def bits(array) -> tuple:
    return array.shape, array.dtype, array.tobytes()


FALSE_HEADERS = {
    "empty file": (lambda path: path.write_bytes(b""), r"has 0 bytes, too few .*truncated"),
    "no header": (lambda path: path.write_bytes(bytes(7)), "has 7 bytes, too few"),
    "header beyond the file": (
        lambda path: write_raw(path, GOOD, bytes(16), length=1 << 60),
        "its header should have 1152921504606846976: it is truncated, or not a safetensors file",
    ),
    "a zip": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "not JSON|not a safetensors file"),
    "header too short": (lambda path: write_raw(path, GOOD, bytes(16), length=30), "header .* is not JSON"),
    "not JSON": (lambda path: write_raw(path, b"{'a': 1}"), "header .* is not JSON: Expecting property"),
    "not UTF-8": (lambda path: write_raw(path, b'{"\xff": 1}'), "header .* is not JSON: .*utf-8"),
    "too deep": (lambda path: write_raw(path, b'{"a":' + b"[" * 200_000), "header .* is not JSON"),
    "a number too long": (
        lambda path: write_raw(path, b'{"a":' + b"1" * 9000 + b"}"),
        "header .* is not JSON",
    ),
    "a list": (lambda path: write_raw(path, []), "header .* is not a JSON object but a list"),
    "a tensor that is a number": (lambda path: write_raw(path, {"a": 1}), "tensor 'a' is not described by"),
    "no dtype": (
        lambda path: write_raw(path, {"a": {"shape": [], "data_offsets": [0, 4]}}),
        "'a' is not descr",
    ),
    "three offsets": (
        lambda path: write_raw(
            path, {"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 1, 4]}}, bytes(4)
        ),
        "tensor 'a' is not described by",
    ),
    "metadata of numbers": (
        lambda path: write_raw(path, {"__metadata__": {"a": 1}}),
        "__metadata__ that is not",
    ),
    "metadata that is a list": (
        lambda path: write_raw(path, {"__metadata__": []}),
        "__metadata__ that is not",
    ),
    "unknown dtype": (
        lambda path: write_raw(path, {"a": entry(0, 8, dtype="F33")}, bytes(8)),
        "tensor 'a' has the dtype 'F33', which is unknown; known are BOOL, .*BF16",
    ),
    "4-bit dtype": (
        lambda path: write_raw(path, {"a": entry(0, 1, dtype="F4")}, b"0"),
        "'a' has the dtype 'F4'",
    ),
    "the same name twice": (
        lambda path: write_raw(path, json.dumps(GOOD).replace('"b"', '"a"').encode(), bytes(16)),
        "header .* names 'a' 2 times",
    ),
    "overlap": (
        lambda path: write_raw(path, {"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
        "tensor 'b' begins at byte .*, within tensor 'a'",
    ),
    "the same bytes twice": (
        lambda path: write_raw(path, {"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)),
        "tensor 'b' begins at byte .*, within tensor 'a'",
    ),
    "hole": (
        lambda path: write_raw(path, {"a": entry(0, 8), "b": entry(12, 20)}, bytes(20)),
        "4 bytes before tensor 'b' belong to no tensor",
    ),
    "hole at the beginning": (
        lambda path: write_raw(path, {"a": entry(4, 12)}, bytes(12)),
        "4 bytes before tensor 'a' belong to no tensor",
    ),
    "bytes after the end": (
        lambda path: write_raw(path, GOOD, bytes(19)),
        "has 3 bytes after its last tensor",
    ),
    "truncated": (
        lambda path: write_raw(path, GOOD, bytes(15)),
        "but tensor 'b' ends at byte .*: it is truncated",
    ),
    "backwards": (
        lambda path: write_raw(path, {"a": entry(8, 0)}, bytes(8)),
        r"'a' has the data_offsets \[8, 0\]",
    ),
    "negative offset": (
        lambda path: write_raw(path, {"a": entry(-8, 0)}, bytes(8)),
        r"'a' has the data_offsets \[-8, 0\]",
    ),
    "offsets in text": (
        lambda path: write_raw(path, {"a": entry("0", "8")}, bytes(8)),
        "'a' has the data_offsets .'0', '8'.",
    ),
    "size of another shape": (
        lambda path: write_raw(path, {"a": entry(0, 8, (3,))}, bytes(8)),
        r"so 8 bytes, but its shape \[3\] and dtype F32 make 12",
    ),
    "negative size": (
        lambda path: write_raw(path, {"a": entry(0, 8, (-1, -2))}, bytes(8)),
        r"'a' has the shape \[-1, -2\], which is not a list of",
    ),
    "size that is a fraction": (
        lambda path: write_raw(path, {"a": entry(0, 8, (2.0,))}, bytes(8)),
        r"'a' has the shape \[2.0\], which is not a list of",
    ),
    "size that is a truth": (
        lambda path: write_raw(path, {"a": entry(0, 4, (True,))}, bytes(4)),
        r"'a' has the shape \[True\], which is not a list of",
    ),
    "too many dimensions": (
        lambda path: write_raw(path, {"a": entry(0, 4, (1,) * 65)}, bytes(4)),
        "not a list of at most 64 sizes",
    ),
    "empty, but too large": (
        lambda path: write_raw(path, {"a": entry(0, 0, (0, 1 << 70))}),
        "is more than a file can hold",
    ),
    "Git LFS pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is a Git LFS pointer.*git lfs pull",
    ),
}


@pytest.mark.parametrize("damage", FALSE_HEADERS)
def test_a_false_header_is_refused_with_the_file_and_the_reason(tmp_path, damage):
    write, message = FALSE_HEADERS[damage]
    write_raw(tmp_path / WHOLE, GOOD, bytes(16))
    open_tensors(tmp_path).close()
    write(tmp_path / WHOLE)
    with pytest.raises(InputError, match=message) as refusal:
        open_tensors(tmp_path)
    assert str(tmp_path / WHOLE) in str(refusal.value)
    if damage not in ("4-bit dtype", "too many dimensions"):  # which the format has, and numpy has not
        with pytest.raises(safetensors.SafetensorError):
            safetensors.numpy.load_file(tmp_path / WHOLE)


def test_a_header_longer_than_the_format_allows_is_refused(tmp_path):
    write_raw(tmp_path / WHOLE, b"{}", length=100_000_001)
    os.truncate(tmp_path / WHOLE, 200_000_000)
    with pytest.raises(InputError, match="header of 100000001 bytes; the format allows 100000000"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_refused_or_read_as_the_library_reads_it(tmp_path, seed):
    choose = random.Random(seed)
    arrays = {f"layer.{n}": np.random.default_rng(n).normal(size=(2, n)).astype(np.float16) for n in range(4)}
    good = safetensors.numpy.save(arrays, {"format": "pt"})
    header_end = 8 + int.from_bytes(good[:8], "little")
    opened = 0
    for _ in range(150):
        damaged = bytearray(good)
        for _ in range(choose.randint(1, 2)):
            place = choose.randrange(header_end)
            damaged[place] = choose.choice([choose.randrange(256), *b'0123456789",:[]{}-'])
        if choose.random() < 0.1:
            del damaged[choose.randrange(len(damaged)) :]
        (tmp_path / WHOLE).write_bytes(damaged)
        try:
            with open_tensors(tmp_path) as tensors:
                found = {name: tensor.read() for name, tensor in tensors.items()}
        except InputError:
            continue
        opened += 1
        theirs = safetensors.numpy.load_file(tmp_path / WHOLE)
        assert {name: bits(array) for name, array in found.items()} == {n: bits(a) for n, a in theirs.items()}
    assert 0 < opened < 150


def test_a_header_of_thirty_thousand_tensors_opens_in_seconds(tmp_path):
    count = 30_000
    write_raw(tmp_path / WHOLE, {f"model.layers.{i}.weight": entry(8 * i, 8 * i + 8) for i in range(count)})
    os.truncate(tmp_path / WHOLE, (tmp_path / WHOLE).stat().st_size + 8 * count)
    start = time.process_time()
    with open_tensors(tmp_path) as tensors:
        assert len(tensors) == count
    assert time.process_time() - start < 5


def test_a_header_gives_the_tensors_in_the_order_of_their_bytes(tmp_path):
    write_raw(tmp_path / WHOLE, {"b": entry(8, 16), "none": entry(8, 8, (0,)), "a": entry(0, 8)}, bytes(16))
    with open(tmp_path / WHOLE, "rb", buffering=0) as file:
        assert list(read_header(file)) == ["a", "none", "b"]
