"""MXFP4 against transformers (goldens/huggingface/make_mxfp4.py), and checkpoints that hold it."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.gpt.huggingface import ARCHITECTURES
from mjx.models.huggingface import from_pretrained, save_pretrained
from mjx.models.huggingface.packed import MXFP4, unpacked
from mjx.models.huggingface.tensor_files import open_tensors
from mjx.models.huggingface.tensor_writer import TensorWriter
from mjx.models.interop.tensor_layout import InMemory
from mjx.sharding import MeshConfig, build_mesh

with np.load(Path(__file__).parents[2] / "goldens" / "huggingface" / "mxfp4.npz") as file:
    GOLDEN = dict(file)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Counting(InMemory):
    """Remembers how many numbers were asked for."""

    count = 0

    def read(self, index=()):
        array = super().read(index)
        type(self).count += array.size
        return array


def packed(kind=InMemory, **changes) -> MXFP4:
    arrays = {name: changes.get(name, GOLDEN[name]) for name in ("blocks", "scales")}
    return MXFP4(kind(arrays["blocks"]), kind(arrays["scales"]), "experts")


def test_every_number_is_that_of_transformers():
    assert set(GOLDEN["blocks"].ravel()) == set(range(256))
    assert set(GOLDEN["scales"].ravel()) == set(range(255))
    tensor = packed()
    assert tensor.dtype == BFLOAT16
    assert tensor.shape == GOLDEN["bfloat16"].shape
    np.testing.assert_array_equal(tensor.read().view(np.uint16), GOLDEN["bfloat16"])
    assert np.isinf(tensor.read().astype(np.float32)).any()


def test_of_a_block_without_a_scale_all_numbers_are_nan():
    scales = GOLDEN["scales"].copy()
    scales[1, 2, 0] = 255
    found = np.isnan(packed(scales=scales).read().astype(np.float32))
    assert found[1, :32, 2].all()
    assert found.sum() == 32


def test_the_bytes_of_a_part_are_all_that_is_read():
    whole = packed().read()
    for index in (
        (slice(1, 2), slice(0, 64), slice(7, 9)),
        (slice(0, 3), slice(33, 40), slice(0, 50)),
        (slice(0, 3), slice(30, 34)),
        (slice(2, 2),),
        (),
    ):
        Counting.count = 0
        part = packed(Counting).read(index)
        np.testing.assert_array_equal(part.view(np.uint16), whole[index].view(np.uint16))
        assert part.flags.c_contiguous
        full = [*index, *[slice(None)] * (3 - len(index))]
        experts, rows, columns = (range(size)[each] for each, size in zip(full, whole.shape, strict=True))
        blocks = len({row // 32 for row in rows})
        assert Counting.count == len(experts) * len(columns) * blocks * (16 + 1)


@pytest.mark.parametrize(
    ("part", "array"),
    [
        ("blocks", GOLDEN["blocks"][..., :8]),
        ("blocks", GOLDEN["blocks"].astype(np.int8)),
        ("scales", GOLDEN["scales"][:, :, :1]),
        ("scales", GOLDEN["scales"].astype(np.float32)),
    ],
)
def test_two_tensors_that_are_not_the_parts_of_one_are_refused(part, array):
    with pytest.raises(InputError, match="tensor experts cannot be unpacked: experts_blocks holds"):
        packed(**{part: array})


def test_only_what_is_expected_is_unpacked():
    blocks, scales = InMemory(GOLDEN["blocks"]), InMemory(GOLDEN["scales"])
    both = {"a_blocks": blocks, "a_scales": scales}
    assert list(unpacked(both, {"a"})) == ["a"]
    assert unpacked(both, {"a_blocks", "a_scales"}) is both
    assert list(unpacked({"a_blocks": blocks}, {"a"})) == ["a_blocks"]


CONFIG = {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 4,
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
}


def write_packed(folder: Path, config: dict = CONFIG) -> dict[str, np.ndarray]:
    """A checkpoint as gpt-oss's are; returns what it holds, unpacked."""
    architecture = next(each for each in ARCHITECTURES if each.model_type == "gpt_oss")
    shapes = architecture.name_map(architecture.config.to_ours(config, "config.json")).theirs
    random, stored, whole = np.random.RandomState(0), {}, {}
    for name, shape in shapes.items():
        if name.endswith("_proj"):
            experts, features, columns = shape
            blocks = random.randint(0, 256, (experts, columns, features // 32, 16)).astype(np.uint8)
            scales = random.randint(121, 126, (experts, columns, features // 32)).astype(np.uint8)
            stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            whole[name] = MXFP4(InMemory(blocks), InMemory(scales), name).read()
        else:
            whole[name] = stored[name] = (0.3 * random.standard_normal(shape)).astype(BFLOAT16)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    with TensorWriter(folder, {name: (each.shape, each.dtype) for name, each in stored.items()}) as writer:
        for name, each in stored.items():
            writer.write(name, each)
    return whole


def test_a_packed_checkpoint_is_read_on_any_mesh_and_written_unpacked(tmp_path):
    whole = write_packed(tmp_path / "packed")
    tokens = np.random.RandomState(1).randint(0, 61, (2, 12))
    model = from_pretrained(tmp_path / "packed")
    logits = model(tokens)
    mesh = build_mesh(MeshConfig(fsdp=2, expert=2, tensor=2))
    np.testing.assert_allclose(from_pretrained(tmp_path / "packed", mesh=mesh)(tokens), logits, atol=1e-5)

    save_pretrained(model, tmp_path / "written")
    with open_tensors(tmp_path / "written") as tensors:
        assert tensors.keys() == whole.keys()
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(tensor.read().view(np.uint16), whole[name].view(np.uint16), name)
    written = json.loads((tmp_path / "written" / "config.json").read_text())
    assert "quantization_config" not in written
    assert written["sliding_window"] == 4
    np.testing.assert_array_equal(from_pretrained(tmp_path / "written")(tokens), logits)


@pytest.mark.parity
def test_transformers_reads_the_same_of_a_packed_checkpoint(tmp_path):
    transformers = pytest.importorskip("transformers", minversion="5")
    torch = pytest.importorskip("torch")
    write_packed(tmp_path / "packed")
    tokens = np.random.RandomState(1).randint(0, 61, (2, 12))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "packed",
        attn_implementation="eager",
        dtype=torch.float32,
        quantization_config=transformers.Mxfp4Config(dequantize=True),
    )
    with torch.no_grad():
        expected = theirs.float().eval()(torch.from_numpy(tokens)).logits.numpy()
    found = from_pretrained(tmp_path / "packed", dtype="float32")(tokens)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_without_its_scales_a_packed_tensor_is_missed_by_name(tmp_path):
    write_packed(tmp_path / "packed")
    with open_tensors(tmp_path / "packed") as tensors:
        kept = {name: tensor.read() for name, tensor in tensors.items()}
    del kept["model.layers.1.mlp.experts.down_proj_scales"]
    (tmp_path / "packed" / "model.safetensors").unlink()
    sizes = {name: (each.shape, each.dtype) for name, each in kept.items()}
    with TensorWriter(tmp_path / "packed", sizes) as writer:
        for name, each in kept.items():
            writer.write(name, each)
    with pytest.raises(InputError, match=r"unknown \(.*down_proj_blocks\) and 1 missing \(.*down_proj\)"):
        from_pretrained(tmp_path / "packed")
