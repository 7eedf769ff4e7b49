"""Reading torch_dist folders: those that Megatron-Core wrote, and others written here."""

import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from checkpoints import NAMES, unpack
from written import cut, torch_save, write

from mjx.errors import InputError
from mjx.models.interop.strided_read import STAGE
from mjx.models.megatron import TorchDistFolder, is_parameter, torch_dist

RANDOM = np.random.default_rng(0)


def test_every_part_of_a_tensor_in_chunks_is_read_as_it_was(tmp_path):
    array = RANDOM.standard_normal((4, 6, 8)).astype(np.float32)
    tensor = TorchDistFolder(write(tmp_path, {"a": cut(array, 2, 3, 4)}))["a"]
    assert tensor.shape == array.shape
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor.read(), array)
    np.testing.assert_array_equal(tensor.read((slice(3, 4),)), array[3:4])
    for _ in range(50):
        index = tuple(slice(*sorted(RANDOM.integers(0, n + 1, 2))) for n in array.shape)
        np.testing.assert_array_equal(tensor.read(index), array[index])


def test_only_chunks_that_overlap_are_read(tmp_path, monkeypatch):
    folder = TorchDistFolder(unpack("llama", tmp_path), is_parameter)
    opened = []
    original = torch_dist.open_file
    monkeypatch.setattr(torch_dist, "open_file", lambda path: opened.append(path.name) or original(path))
    table = folder["embedding.word_embeddings.weight"]
    table.read((slice(0, 16),))
    assert len(opened) == 1
    table.read((slice(15, 17),))
    assert len(opened) == 3
    assert len(set(opened)) == 2  # one file of each tensor-parallel rank


def test_a_part_takes_the_memory_of_that_part(tmp_path):
    array = RANDOM.standard_normal((2, 1024, 2048)).astype(np.float32)  # 16 MiB, in 2 chunks
    tensor = TorchDistFolder(write(tmp_path, {"a": cut(array, 2, 1, 1)}))["a"]
    tensor.read((slice(0, 2), slice(0, 1)))
    tracemalloc.start()
    part = tensor.read((slice(0, 2), slice(0, 1024), slice(64, 192)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * part.nbytes + STAGE < array.nbytes / 2
    np.testing.assert_array_equal(part, array[:, :, 64:192])


def test_a_transposed_tensor_and_one_of_other_types_are_read(tmp_path):
    tall = RANDOM.standard_normal((3, 5)).astype(np.float16)
    folder = TorchDistFolder(
        write(
            tmp_path,
            {"t": {(0, 0): tall.T}, "d": {(): np.array(0.7310585786)}, "e": {(0,): np.zeros(0, np.float32)}},
        )
    )
    np.testing.assert_array_equal(folder["t"].read((slice(1, 4), slice(1, 3))), tall.T[1:4, 1:3])
    np.testing.assert_array_equal(folder["d"].read(), 0.7310585786)
    assert folder["e"].read().shape == (0,)


def test_the_newest_checkpoint_of_megatron_lm_s_layout_is_found_with_its_arguments(tmp_path):
    folder = TorchDistFolder(unpack("llama", tmp_path), is_parameter)
    assert folder.path == tmp_path / "iter_0000100"
    assert folder.iteration == 100
    assert folder.arguments["num_attention_heads"] == 4
    assert not any(name.startswith(("optimizer", "rng")) for name in folder)
    everything = TorchDistFolder(tmp_path / "iter_0000100")
    assert any(name.startswith("optimizer") for name in everything)


def test_files_of_the_optimizer_alone_may_be_missing(tmp_path):
    one = write(tmp_path, {"optimizer.a": {(0,): np.ones(2)}}, file="__0_1.distcp")
    (one / "__0_1.distcp").unlink()
    assert not TorchDistFolder(one, is_parameter)
    with pytest.raises(
        InputError, match=r"is incomplete: __0_1.distcp, which holds part of tensor optimizer.a"
    ):
        TorchDistFolder(one)


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_or_missing_file_is_refused_by_name(tmp_path, name):
    root = unpack(name, tmp_path)
    tensors = TorchDistFolder(root, is_parameter)
    file = next(iter(tensors.values())).chunks[0].file
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 3])
    with pytest.raises(InputError, match=rf"{file.name} is truncated: it has {len(content) // 3} bytes"):
        TorchDistFolder(root, is_parameter)
    file.unlink()
    with pytest.raises(InputError, match=rf"incomplete: {file.name}.* is missing"):
        TorchDistFolder(root, is_parameter)


def test_bytes_that_are_no_tensor_are_refused(tmp_path):
    folder = write(tmp_path, {"a": {(0,): np.ones(8, np.float32)}})
    file = folder / "__0_0.distcp"
    file.write_bytes(os.urandom(file.stat().st_size))
    with pytest.raises(
        InputError, match=r"tensor a from \[0\] on, is not what torch.save writes, or damaged"
    ):
        TorchDistFolder(folder)["a"].read()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"shape": (9,)}, r"chunks of tensor a do not make up its shape, \[9\]"),
        ({"dtype": "float16"}, r"it holds torch.FloatStorage, but .metadata says float16"),
        ({"file": "../__0_0.distcp"}, r"names '../__0_0.distcp' for tensor a, which is outside its folder"),
        ({"transform_descriptors": ["zstd"]}, r"tensor a is compressed \(zstd\)"),
        ({"length": 40}, r"is not what torch.save writes, or damaged"),
        ({"offset": "here"}, r"damaged"),
    ],
)
def test_metadata_that_lies_is_refused(tmp_path, told, message):
    with pytest.raises(InputError, match=message):
        TorchDistFolder(write(tmp_path, {"a": {(0,): np.ones(8, np.float32)}}, **told))["a"].read()


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("where", ["metadata", "common", "tensor"])
def test_a_pickle_that_would_run_code_runs_none(tmp_path, where):
    folder = write(tmp_path / "checkpoint", {"a": {(0,): np.ones(8, np.float32)}})
    attack = pickle.dumps({"args": _Touch(tmp_path / "ran")}, 2)
    if where == "metadata":
        (folder / ".metadata").write_bytes(attack)
        with pytest.raises(InputError, match=r"is not the metadata of torch.distributed.checkpoint"):
            TorchDistFolder(folder)
    else:
        file = folder / ("common.pt" if where == "common" else "__0_0.distcp")
        saved = torch_save(np.ones(8, np.float32))
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", attack)
            archive.comment = b" " * max(0, len(saved) - 140 - len(attack))
        if where == "common":
            assert TorchDistFolder(folder).arguments == {}
        else:
            file.write_bytes(file.read_bytes().ljust(len(saved), b" ")[: len(saved)])
            with pytest.raises(InputError, match="tensor a"):
                TorchDistFolder(folder)["a"].read()
    assert not (tmp_path / "ran").exists()
    pickle.loads(attack)  # it would have
    assert (tmp_path / "ran").exists()


def test_other_folders_are_refused_with_what_they_are(tmp_path):
    with pytest.raises(InputError, match="There is no folder"):
        TorchDistFolder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"is not a checkpoint of Megatron-Core's format torch_dist"):
        TorchDistFolder(tmp_path)
    (tmp_path / "old" / "iter_0000005" / "mp_rank_00").mkdir(parents=True)
    (tmp_path / "old" / "latest_checkpointed_iteration.txt").write_text("5\n")
    with pytest.raises(InputError, match=r"iter_0000005 is a checkpoint in Megatron-LM's old format"):
        TorchDistFolder(tmp_path / "old")
    (tmp_path / "old" / "latest_checkpointed_iteration.txt").write_text("6")
    with pytest.raises(InputError, match=r"says '6', but .* has no such checkpoint"):
        TorchDistFolder(tmp_path / "old")
    folder = write(tmp_path / "parent" / "iter_0000001", {"a": {(0,): np.ones(8, np.float32)}})
    with pytest.raises(InputError, match=r"holds some: give one of them, e.g. .*iter_0000001"):
        TorchDistFolder(tmp_path / "parent")
    (folder / "metadata.json").write_text('{"sharded_backend": "fsdp_dtensor"}')
    with pytest.raises(
        InputError, match="is a checkpoint of the format 'fsdp_dtensor'; mjx reads torch_dist"
    ):
        TorchDistFolder(folder)
    (folder / "metadata.json").unlink()
    (folder / ".metadata").write_bytes(b"\x80\x04nonsense")
    with pytest.raises(InputError, match=r"\.metadata is damaged"):
        TorchDistFolder(folder)
