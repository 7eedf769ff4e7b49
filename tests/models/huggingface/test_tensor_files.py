"""Reading checkpoints: any part of any tensor, of files that fit one another, in little memory."""

import json
import os
import random
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from safetensors_bytes import GOOD, entry, write_raw

from mjx.errors import InputError
from mjx.models.huggingface.safetensors_header import DTYPES
from mjx.models.huggingface.tensor_files import open_tensors
from mjx.models.huggingface.tensor_writer import TensorWriter
from mjx.models.interop import strided_read

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def random_array(shape, dtype, seed=0) -> np.ndarray:
    """Every bit pattern, NaNs included."""
    top = 2 if dtype.kind == "b" else 256
    return (
        np.random.default_rng(seed)
        .integers(0, top, (*shape, dtype.itemsize), np.uint8)
        .view(dtype)
        .reshape(shape)
    )


def bits(array) -> tuple:
    return array.shape, array.dtype, array.tobytes()


def write_sharded(folder: Path) -> None:
    """Tensors a, b and c in two shards, with their index."""
    arrays = {name: np.full((2, 3), number, np.float32) for number, name in enumerate("abc")}
    sizes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    with TensorWriter(folder, sizes, max_shard_bytes=48) as writer:
        for name, array in arrays.items():
            writer.write(name, array)


def test_every_dtype_that_the_library_writes_is_read(tmp_path):
    arrays = {
        name: random_array(shape, dtype)
        for name, dtype in DTYPES.items()
        for name, shape in ((name, (5, 3)), (f"{name} scalar", ()), (f"{name} empty", (0, 4)))
    }
    safetensors.numpy.save_file(arrays, tmp_path / WHOLE)
    with open_tensors(tmp_path) as tensors:
        assert set(tensors) == set(arrays)
        assert len(tensors) == 3 * 19
        for name, array in arrays.items():
            assert (tensors[name].shape, tensors[name].dtype) == (array.shape, array.dtype)
            assert bits(tensors[name].read()) == bits(array)
            assert bits(tensors[name].read((slice(None),) * array.ndim)) == bits(array)


def test_a_name_that_is_not_there_is_a_key_error(tmp_path):
    write_raw(tmp_path / WHOLE, GOOD, bytes(16))
    with open_tensors(tmp_path) as tensors, pytest.raises(KeyError):
        tensors["c"]


def test_what_was_read_can_be_written_and_stays_when_the_files_are_closed(tmp_path):
    safetensors.numpy.save_file({"a": np.arange(6.0)}, tmp_path / WHOLE)
    with open_tensors(tmp_path) as tensors:
        part = tensors["a"].read((slice(2, 4),))
    (tmp_path / WHOLE).unlink()
    part += 1
    assert part.tolist() == [3, 4]
    with pytest.raises(ValueError, match="closed"):
        tensors["a"].read()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stage", [64, 1000, 1 << 20])
def test_any_slice_is_numpy_s(tmp_path, monkeypatch, seed, stage):
    choose = random.Random(seed)
    # Small enough that little arrays are read in all the ways that large ones are.
    monkeypatch.setattr(strided_read, "STAGE", stage)
    monkeypatch.setattr(strided_read, "_LONG_RUN", choose.choice([1, 16, 64, 1 << 16]))
    monkeypatch.setattr(strided_read, "_LONG_GAP", choose.choice([0, 8, 64, 1 << 16]))
    arrays = {}
    for number in range(20):
        shape = tuple(choose.randint(choose.random() > 0.1, 7) for _ in range(choose.randint(0, 5)))
        arrays[str(number)] = random_array(shape, choose.choice(list(DTYPES.values())), number)
    safetensors.numpy.save_file(arrays, tmp_path / WHOLE)
    with open_tensors(tmp_path) as tensors:
        for name, array in arrays.items():
            for _ in range(10):
                index = tuple(
                    slice(
                        choose.choice([None, *range(-size, size + 2)]),
                        choose.choice([None, *range(size + 2)]),
                    )
                    for size in array.shape[: choose.randint(0, array.ndim)]
                )
                assert bits(tensors[name].read(index)) == bits(array[index]), (array.shape, index)


@pytest.mark.parametrize("columns", [1, 40, 5000, 20_000, 65_537, 90_000])
def test_slices_of_rows_longer_than_what_is_read_at_once_are_numpy_s(tmp_path, columns):
    array = random_array((5, 3, 100_000), np.dtype(np.uint16))
    safetensors.numpy.save_file({"a": array}, tmp_path / WHOLE)
    with open_tensors(tmp_path) as tensors:
        for index in np.s_[:, :, 7 : 7 + columns], np.s_[1:4, 1:3, 7 : 7 + columns], np.s_[2:3, 1:, :columns]:
            assert bits(tensors["a"].read(index)) == bits(array[index])


@pytest.mark.parametrize(
    "index", [np.s_[:], np.s_[:, :, 3:1000], np.s_[:, :1990, 3:1000], np.s_[:, 1:3, :1]], ids=str
)
def test_a_read_takes_little_memory_beside_the_part(tmp_path, index):
    safetensors.numpy.save_file({"a": np.zeros((4, 2000, 2048), np.uint16)}, tmp_path / WHOLE)
    with open_tensors(tmp_path) as tensors:
        tracemalloc.start()
        part = tensors["a"].read(index if isinstance(index, tuple) else (index,))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < part.nbytes + strided_read.STAGE + 100_000


@pytest.mark.parametrize("index", [np.s_[::2], np.s_[::-1], np.s_[:, :, :]], ids=str)
def test_an_index_that_is_no_box_is_a_value_error(tmp_path, index):
    safetensors.numpy.save_file({"a": np.zeros((4, 4))}, tmp_path / WHOLE)
    with open_tensors(tmp_path) as tensors, pytest.raises(ValueError, match=r"step|slices"):
        tensors["a"].read(index if isinstance(index, tuple) else (index,))


def test_names_and_metadata_may_be_any_text(tmp_path):
    arrays = {"modèle/π .weight": np.zeros(3), "": np.ones(2)}
    safetensors.numpy.save_file(arrays, tmp_path / WHOLE, {"é": '"'})
    with open_tensors(tmp_path) as tensors:
        assert set(tensors) == set(arrays)


def test_a_file_without_tensors_is_an_empty_checkpoint(tmp_path):
    write_raw(tmp_path / WHOLE, {})
    with open_tensors(tmp_path) as tensors:
        assert not tensors


def test_a_file_that_is_shortened_while_it_is_open_is_an_error(tmp_path):
    safetensors.numpy.save_file({"a": np.zeros((100, 100))}, tmp_path / WHOLE)
    with open_tensors(tmp_path) as tensors:
        os.truncate(tmp_path / WHOLE, 40_000)
        assert not tensors["a"].read((slice(10),)).any()
        for index in (), np.s_[:, 3:5]:
            with pytest.raises(InputError, match=r"model\.safetensors ends at byte 40000, .*truncated"):
                tensors["a"].read(index)


def test_shards_are_one_checkpoint(tmp_path):
    write_sharded(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        INDEX,
    ]
    with open_tensors(tmp_path) as tensors:
        assert {name: tensor.read().mean() for name, tensor in tensors.items()} == {"a": 0, "b": 1, "c": 2}


def test_links_into_the_hub_s_cache_are_followed(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    write_sharded(blobs)
    for number, name in enumerate(sorted(os.listdir(blobs))):
        (blobs / name).rename(blobs / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    with open_tensors(snapshot) as tensors:
        assert tensors["c"].read().tolist() == [[2, 2, 2], [2, 2, 2]]
    (blobs / "1").unlink()
    with pytest.raises(
        InputError, match=r"00002-of-00002.* is a link to ../../blobs/1, which does not exist"
    ):
        open_tensors(snapshot)


def test_model_safetensors_comes_before_an_index_as_in_transformers(tmp_path):
    write_sharded(tmp_path)
    write_raw(tmp_path / WHOLE, {"only": entry(0, 8)}, bytes(8))
    with open_tensors(tmp_path) as tensors:
        assert list(tensors) == ["only"]


def test_a_single_file_may_have_another_name(tmp_path):
    write_raw(tmp_path / "consolidated.safetensors", GOOD, bytes(16))
    with open_tensors(tmp_path) as tensors:
        assert set(tensors) == {"a", "b"}
    write_raw(tmp_path / "second.safetensors", GOOD, bytes(16))
    with pytest.raises(
        InputError, match=r"several safetensors files \(consolidated.*, second.*\), but no model"
    ):
        open_tensors(tmp_path)


def edit_index(folder: Path, change) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def duplicate_shard(folder: Path) -> None:
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "again.safetensors")
    edit_index(folder, lambda shards: shards.update(b="again.safetensors"))


FALSE_FOLDERS = {
    "missing shard": (
        lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(),
        "index.json names 'model-00002-of-00002.safetensors' for tensor 'c', and there is no such file",
    ),
    "parent folder": (
        lambda folder: edit_index(folder, lambda shards: shards.update(b="../model.safetensors")),
        "names '../model.safetensors' for tensor 'b', which is outside its folder",
    ),
    "parent folder, later": (
        lambda folder: edit_index(folder, lambda shards: shards.update(b="x/../../model.safetensors")),
        "for tensor 'b', which is outside its folder",
    ),
    "absolute path": (
        lambda folder: edit_index(folder, lambda shards: shards.update(b="/etc/passwd")),
        "names '/etc/passwd' for tensor 'b', which is outside its folder",
    ),
    "the folder itself": (
        lambda folder: edit_index(folder, lambda shards: shards.update(b="")),
        "is not a file",
    ),
    "no path": (
        lambda folder: edit_index(folder, lambda shards: shards.update(b="a\0b")),
        r"names 'a\\x00b' for tensor 'b', and there is no such file",
    ),
    "path too long": (
        lambda folder: edit_index(folder, lambda shards: shards.update(b="a" * 5000)),
        "for tensor 'b', and there is no such file",
    ),
    "tensor that the shard does not hold": (
        lambda folder: edit_index(folder, lambda shards: shards.update(d="model-00001-of-00002.safetensors")),
        "names 'model-00001-of-00002.safetensors' for tensor 'd', which that file does not hold",
    ),
    "tensor in another shard": (
        lambda folder: edit_index(folder, lambda shards: shards.update(b="model-00002-of-00002.safetensors")),
        "names 'model-00002-of-00002.safetensors' for tensor 'b', which that file does not hold",
    ),
    "tensor absent from the index": (
        lambda folder: edit_index(folder, lambda shards: shards.pop("b")),
        "00001-of-00002.safetensors holds a tensor 'b', which model.safetensors.index.json does not name",
    ),
    "tensor in two shards": (duplicate_shard, "again.safetensors.* both hold a tensor '[ab]'"),
    "tensor twice in the index": (
        lambda folder: (folder / INDEX).write_text('{"weight_map": {"a": "x", "a": "y"}}'),
        "index.json names 'a' 2 times",
    ),
    "index without a map": (
        lambda folder: (folder / INDEX).write_text('{"metadata": {}}'),
        "index.json has no weight_map",
    ),
    "index of numbers": (
        lambda folder: edit_index(folder, lambda shards: shards.update(b=1)),
        "index.json has no weight_map, an object with the file of each tensor",
    ),
    "index that is not JSON": (lambda folder: (folder / INDEX).write_text("{"), "index.json is not JSON"),
    "index that is a list": (
        lambda folder: (folder / INDEX).write_text("[]"),
        "index.json is not a JSON object",
    ),
    "index that is a pointer": (
        lambda folder: (folder / INDEX).write_text("version https://git-lfs.github.com/spec/v1\n"),
        "index.json is a Git LFS pointer",
    ),
    "shard that is a pointer": (
        lambda folder: (folder / "model-00001-of-00002.safetensors").write_text("version https://git-lfs"),
        "00001-of-00002.safetensors is a Git LFS pointer",
    ),
    "shard that is truncated": (
        lambda folder: os.truncate(folder / "model-00001-of-00002.safetensors", 200),
        "00001-of-00002.safetensors .*truncated",
    ),
    "one shard and no index": (
        lambda folder: [(folder / name).unlink() for name in (INDEX, "model-00002-of-00002.safetensors")],
        "holds one shard, model-00001-of-00002.safetensors, of 2, and no model.safetensors.index.json",
    ),
    "shards and no index": (
        lambda folder: (folder / INDEX).unlink(),
        "several safetensors files .*but no model",
    ),
    "a folder in its place": (lambda folder: (folder / WHOLE).mkdir(), "model.safetensors is not a file"),
}


@pytest.mark.parametrize("damage", FALSE_FOLDERS)
def test_files_that_do_not_fit_one_another_are_refused(tmp_path, damage):
    write_sharded(tmp_path)
    open_tensors(tmp_path).close()
    harm, message = FALSE_FOLDERS[damage]
    harm(tmp_path)
    with pytest.raises(InputError, match=message):
        open_tensors(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt"])
def test_pickle_files_are_refused_and_not_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)  # opening it would never return
    with pytest.raises(
        InputError, match=rf"only as pickle files \({name}\), which can run code.* safetensors"
    ):
        open_tensors(tmp_path)
    write_raw(tmp_path / WHOLE, GOOD, bytes(16))
    open_tensors(tmp_path).close()


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no weights in .*: neither model.safetensors nor"):
        open_tensors(tmp_path)
    with pytest.raises(InputError, match=r"no weights in .*/none: no such folder"):
        open_tensors(tmp_path / "none")


def test_files_are_closed_when_one_of_them_is_refused(tmp_path):
    write_sharded(tmp_path)
    os.truncate(tmp_path / "model-00002-of-00002.safetensors", 30)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(InputError):
            open_tensors(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


MEASURE = """
import re, sys
from pathlib import Path
import ml_dtypes
import numpy as np
import safetensors

folder, way, index = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
if way == "ours":
    from mjx.models.huggingface.tensor_files import open_tensors

def memory(field):
    return 1024 * int(re.search(rf"{field}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = memory("VmRSS")
if way == "ours":
    with open_tensors(folder) as tensors:
        parts = [tensor.read(index) for tensor in tensors.values()]
else:
    parts = []
    for file in folder.glob("*.safetensors"):
        with safetensors.safe_open(file, "numpy") as tensors:
            parts += [tensors.get_slice(name)[index] for name in tensors.keys()]
print(sum(part.nbytes for part in parts), memory("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def gigabyte(tmp_path_factory):
    """A checkpoint of 16 tensors of 64 MiB in 4 shards. Sparse: it reads as zeros and takes no disk."""
    folder = tmp_path_factory.mktemp("gigabyte")
    size = 4096 * 8192 * 2
    shards = {}
    for number in range(1, 5):
        name = f"model-{number:05d}-of-00004.safetensors"
        header = {
            f"layer.{number}.{i}": entry(i * size, (i + 1) * size, (4096, 8192), "BF16") for i in range(4)
        }
        write_raw(folder / name, header)
        os.truncate(folder / name, (folder / name).stat().st_size + 4 * size)
        shards |= dict.fromkeys(header, name)
    (folder / INDEX).write_text(json.dumps({"weight_map": shards}))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("index", ["np.s_[512:1024, :]", "np.s_[:, 1024:2048]"], ids=["rows", "columns"])
def test_an_eighth_of_a_gigabyte_takes_no_more_memory_than_itself(gigabyte, index):
    def run(way: str) -> tuple[float, float]:
        command = [sys.executable, "-c", MEASURE, str(gigabyte), way, index]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        read, grown = map(int, result.stdout.split())
        return read / (1 << 30), grown / (1 << 30)

    read, grown = run("ours")
    assert read == 1 / 8
    assert 0.1 < grown < 0.15
    if "[:," in index:  # the measure sees memory-mapped pages
        assert run("the library's")[1] > 0.2


def test_bfloat16_keeps_its_values(tmp_path):
    array = np.array([1.0, -2.5, 3e38, np.nan], ml_dtypes.bfloat16)
    safetensors.numpy.save_file({"a": array}, tmp_path / WHOLE)
    with open_tensors(tmp_path) as tensors:
        assert np.array_equal(
            tensors["a"].read().astype(np.float32), array.astype(np.float32), equal_nan=True
        )
