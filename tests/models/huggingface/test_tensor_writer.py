"""Writing checkpoints: what the library would write, without holding it in memory, whole or not at all."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from mjx.errors import InputError
from mjx.models.huggingface.safetensors_header import DTYPES
from mjx.models.huggingface.tensor_files import open_tensors
from mjx.models.huggingface.tensor_writer import TensorWriter

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def arrays_of_all_dtypes() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays = {}
    for number, (name, dtype) in enumerate(DTYPES.items()):
        for shape in (5, 3), (), (0, 4):
            raw = random.integers(0, 2 if name == "BOOL" else 256, (*shape, dtype.itemsize), np.uint8)
            arrays[f"{19 - number}.é {shape}"] = raw.view(dtype).reshape(shape)
    return arrays


def sizes_of(arrays) -> dict:
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def write(folder, arrays, **options) -> None:
    with TensorWriter(folder, sizes_of(arrays), **options) as writer:
        for name in reversed(arrays):  # in another order than planned
            writer.write(name, arrays[name])


def floats(**sizes) -> dict[str, np.ndarray]:
    """Tensors of so many bytes."""
    return {name: np.full(size // 4, number, np.float32) for number, (name, size) in enumerate(sizes.items())}


def test_one_file_is_byte_for_byte_the_library_s(tmp_path):
    arrays = arrays_of_all_dtypes()
    write(tmp_path, arrays)
    assert os.listdir(tmp_path) == [WHOLE]
    assert (tmp_path / WHOLE).read_bytes() == safetensors.numpy.save(arrays, {"format": "pt"})


@pytest.mark.parametrize("metadata", [{}, {"é": 'a "text"\n'}], ids=["none", "text"])
def test_metadata_are_written_as_the_library_does(tmp_path, metadata):
    write(tmp_path, floats(a=8), metadata=metadata)
    assert (tmp_path / WHOLE).read_bytes() == safetensors.numpy.save(floats(a=8), metadata or None)


def test_tensors_of_all_dtypes_come_back_from_shards(tmp_path):
    arrays = arrays_of_all_dtypes()
    write(tmp_path, arrays, max_shard_bytes=200)
    assert len(os.listdir(tmp_path)) > 3
    with open_tensors(tmp_path) as tensors:
        assert set(tensors) == set(arrays)
        for name, array in arrays.items():
            assert tensors[name].dtype == array.dtype
            assert tensors[name].shape == array.shape
            assert tensors[name].read().tobytes() == array.tobytes()


def test_shards_are_filled_in_the_planned_order_and_indexed(tmp_path):
    write(tmp_path, floats(d=40, c=60, b=4, a=200, e=96, f=8), max_shard_bytes=100)
    shard = "model-{:05d}-of-00005.safetensors".format
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["weight_map"] == {
        "d": shard(1), "c": shard(1), "b": shard(2), "a": shard(3), "e": shard(4), "f": shard(5)
    }  # fmt: skip
    assert index["metadata"] == {"total_size": 408}
    assert sorted(os.listdir(tmp_path)) == [*map(shard, range(1, 6)), INDEX]
    for name, file in index["weight_map"].items():
        with safetensors.safe_open(tmp_path / file, "numpy") as tensors:
            assert tensors.metadata() == {"format": "pt"}
            assert set(tensors.keys()) == {n for n, f in index["weight_map"].items() if f == file}
            assert tensors.get_tensor(name)[0] == "dcbaef".index(name)


def test_a_shard_may_be_exactly_full(tmp_path):
    write(tmp_path, floats(a=40, b=60), max_shard_bytes=100)
    assert os.listdir(tmp_path) == [WHOLE]


def test_no_tensors_are_a_file_too(tmp_path):
    write(tmp_path, {})
    assert safetensors.numpy.load_file(tmp_path / WHOLE) == {}


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a.transpose(1, 2, 0),
        lambda a: a[:, ::2],
        lambda a: a[::-1, 1:, 3:50],
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: a[:, 0, 0],
        lambda a: a[:0].T,
    ],
)
@pytest.mark.parametrize("chunk", [1, 100, 1 << 24])
def test_arrays_that_lie_otherwise_in_memory_are_written_in_c_order(tmp_path, monkeypatch, view, chunk):
    monkeypatch.setattr("mjx.models.huggingface.tensor_writer._CHUNK", chunk)
    array = view(np.arange(4 * 5 * 60, dtype=np.int16).reshape(4, 5, 60))
    write(tmp_path, {"a": array})
    assert np.array_equal(safetensors.numpy.load_file(tmp_path / WHOLE)["a"], array)


def test_nothing_is_left_of_what_raises(tmp_path):
    def interrupted() -> None:
        with TensorWriter(tmp_path, sizes_of(floats(a=8, b=8)), 10) as writer:
            writer.write("a", floats(a=8)["a"])
            assert os.listdir(tmp_path)
            assert not list(tmp_path.glob("[!.]*")), "no file has its name before all are whole"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not os.listdir(tmp_path)


def test_what_a_killed_process_left_is_written_over(tmp_path):
    (tmp_path / f".{WHOLE}.partial").write_bytes(bytes(1000))
    write(tmp_path, floats(a=8))
    assert os.listdir(tmp_path) == [WHOLE]
    assert (tmp_path / WHOLE).read_bytes() == safetensors.numpy.save(floats(a=8), {"format": "pt"})


def test_a_tensor_that_was_never_written_leaves_no_file(tmp_path):
    with (
        pytest.raises(ValueError, match=r"never written: b$"),
        TensorWriter(tmp_path, sizes_of(floats(a=8, b=8))) as writer,
    ):
        writer.write("a", floats(a=8)["a"])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("c", np.zeros(2, np.float32), "c has no size"),
        ("a", np.zeros(2, np.float32), "a is written twice"),
        ("b", np.zeros(3, np.float32), r"b is float32 \(3,\), and should be \(\(2,\)"),
        ("b", np.zeros(2, np.int32), r"b is int32 \(2,\), and should be \(\(2,\)"),
        ("b", np.zeros(2, ">f4"), "b is >f4"),
    ],
)
def test_what_was_not_planned_is_a_value_error(tmp_path, name, array, message):
    def unplanned() -> None:
        with TensorWriter(tmp_path, sizes_of(floats(a=8, b=8))) as writer:
            writer.write("a", floats(a=8)["a"])
            writer.write(name, array)

    with pytest.raises(ValueError, match=message) as error:
        unplanned()
    assert not isinstance(error.value, InputError)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("there", [WHOLE, INDEX, "model-00001-of-00009.safetensors"])
def test_a_folder_that_holds_weights_is_refused_and_left_alone(tmp_path, there):
    (tmp_path / there).write_text("old")
    with pytest.raises(InputError, match=f"holds weights already: {there}"):
        write(tmp_path, floats(a=8))
    assert os.listdir(tmp_path) == [there]
    assert (tmp_path / there).read_text() == "old"


def test_dtypes_and_names_that_the_format_does_not_have_are_refused(tmp_path):
    with pytest.raises(InputError, match="'a' has the dtype complex128, which safetensors"):
        write(tmp_path, {"a": np.zeros(3, np.complex128)})
    with pytest.raises(InputError, match="No tensor can be named __metadata__"):
        write(tmp_path, {"__metadata__": np.zeros(3)})
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written to .*/file: Not a directory"):
        write(tmp_path / "file", floats(a=8))
    with pytest.raises(InputError, match=r"cannot be written to .*/none: No such file or directory"):
        write(tmp_path / "none", floats(a=8))


def test_a_disk_that_is_too_small_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000)
    )
    with pytest.raises(
        InputError, match=r"A copy of the weights needs 5\d{3} bytes in .* has 5000 bytes free"
    ):
        write(tmp_path, floats(a=5000))
    assert not os.listdir(tmp_path)
    write(tmp_path, floats(a=4000))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_an_input_error_and_leaves_nothing(tmp_path, monkeypatch, code):
    pwrite = os.pwrite

    def full(file, data, position):
        if position + len(data) > 1000:
            raise OSError(code, os.strerror(code))
        return pwrite(file, data, position)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(
        InputError, match=f"not be written: {os.strerror(code)}. It needs 4008 bytes in {tmp_path}"
    ):
        write(tmp_path, floats(a=2000, b=2000, c=8), max_shard_bytes=2000)
    assert not os.listdir(tmp_path)


def test_a_disk_that_fills_up_at_the_end_takes_the_finished_files_along(tmp_path, monkeypatch):
    def fail(path, target):
        if target.name.startswith("model-00002"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.rename(path, target)
        return target

    monkeypatch.setattr("pathlib.Path.rename", fail)
    with pytest.raises(InputError, match="weights could not be written: No space left on device"):
        write(tmp_path, floats(a=8, b=8), max_shard_bytes=8)
    assert not os.listdir(tmp_path)


def test_the_limit_of_the_file_system_is_an_input_error(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(InputError, match="A copy of the weights could not be written: File too large"):
            write(tmp_path, floats(a=20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not os.listdir(tmp_path)


MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
from mjx.models.huggingface.tensor_writer import TensorWriter

def memory(field):
    return int(re.search(rf"{field}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

array = np.ones((4000, 3750), np.float32)
sizes = {str(n): (array.shape[::-1], array.dtype) for n in range(4)}
before = memory("VmRSS")
with TensorWriter(Path(sys.argv[1]), sizes) as writer:
    for name in sizes:
        writer.write(name, array.T)
print(memory("VmHWM") - before)
"""


def test_writing_takes_less_memory_than_one_tensor_of_60_mb(tmp_path):
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (tmp_path / WHOLE).stat().st_size > 240_000_000
    (tmp_path / WHOLE).unlink()
    assert grown <= 40


@pytest.mark.parity
def test_torch_and_transformers_read_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4
    )
    model = transformers.LlamaForCausalLM(config)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    config.save_pretrained(tmp_path)
    write(tmp_path, arrays, max_shard_bytes=20_000)
    assert (tmp_path / INDEX).exists()
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())
