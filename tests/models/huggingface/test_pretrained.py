"""Checkpoints as they are found: dtypes, names, leftovers, damage; and what is written back."""

import json
import logging
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.gpt.huggingface import ARCHITECTURES
from mjx.models.huggingface import PretrainedModel, from_pretrained, save_pretrained
from mjx.models.huggingface.tensor_files import open_tensors
from mjx.models.huggingface.tensor_writer import TensorWriter
from mjx.sharding import MeshConfig, build_mesh
from mjx.trees import flatten

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 77,
    "bos_token_id": 1,
    "some_url": None,
}
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 61,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 16,
}
NEOX = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TOKENS = np.random.RandomState(0).randint(0, 61, (2, 8))


def weights_of(config: dict, dtype=np.float32) -> dict[str, np.ndarray]:
    architecture = next(each for each in ARCHITECTURES if each.model_type == config["model_type"])
    shapes = architecture.name_map(architecture.config.to_ours(config, "config.json")).theirs
    draw = np.random.RandomState(0)
    return {name: (0.2 * draw.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}


def write(folder: Path, config: dict, weights: dict[str, np.ndarray], **options) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    sizes = {name: (each.shape, each.dtype) for name, each in weights.items()}
    with TensorWriter(folder, sizes, **options) as writer:
        for name, each in weights.items():
            writer.write(name, each)
    return folder


def read(folder: Path) -> dict[str, np.ndarray]:
    with open_tensors(folder) as tensors:
        return {name: tensor.read() for name, tensor in tensors.items()}


def assert_same_bytes(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        assert (found[name].dtype, found[name].shape) == (each.dtype, each.shape), name
        assert found[name].tobytes() == each.tobytes(), name


@pytest.mark.parametrize("stored", [np.float32, np.float16, BFLOAT16, "mixed"])
@pytest.mark.parametrize("config", [LLAMA, GPT2, NEOX], ids=lambda config: config["model_type"])
def test_import_and_export_give_every_byte_back(config, stored, tmp_path):
    weights = weights_of(config, np.float32 if stored == "mixed" else stored)
    if stored == "mixed":
        weights = {name: each.astype(BFLOAT16) if each.ndim > 1 else each for name, each in weights.items()}
    model = from_pretrained(write(tmp_path / "source", config, weights))
    save_pretrained(model, tmp_path / "copy")
    assert_same_bytes(read(tmp_path / "copy"), weights)
    written = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert {key: written[key] for key in config} == config


def test_shards_are_read_on_a_mesh_and_written_again(tmp_path):
    weights = weights_of(LLAMA)
    source = write(tmp_path / "source", LLAMA, weights, max_shard_bytes=20_000)
    assert len(list(source.glob("*.safetensors"))) > 2
    model = from_pretrained(source, mesh=build_mesh(MeshConfig(fsdp=2, tensor=4)))
    save_pretrained(model, tmp_path / "copy", max_shard_bytes=20_000)
    assert_same_bytes(read(tmp_path / "copy"), weights)


def test_dtype_decides_parameters_and_computation(tmp_path):
    source = write(tmp_path / "source", LLAMA, weights_of(LLAMA, np.float16))
    kept, wide, narrow = (from_pretrained(source, dtype=dtype) for dtype in (None, "float32", jnp.bfloat16))
    for model, parameters, compute in (
        (kept, "float16", "auto"),
        (wide, "float32", "float32"),
        (narrow, "bfloat16", "bfloat16"),
    ):
        assert {leaf.dtype.name for leaf in flatten(model.parameters).values()} == {parameters}
        assert model.config.dtype == compute
    np.testing.assert_allclose(kept(TOKENS), wide(TOKENS), atol=1e-5)
    assert 1e-5 < np.abs(narrow(TOKENS) - wide(TOKENS)).max() < 0.3
    with pytest.raises(InputError, match="float16"):
        from_pretrained(source, dtype=jnp.float16)


def test_names_without_prefix_and_old_buffers_are_understood(tmp_path):
    weights = weights_of(GPT2)
    plain = {name.removeprefix("transformer."): each for name, each in weights.items()}
    plain["h.0.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), np.float32))
    plain["h.1.attn.masked_bias"] = np.array(-1e4, np.float32)
    expected = from_pretrained(write(tmp_path / "prefixed", GPT2, weights))(TOKENS)
    found = from_pretrained(write(tmp_path / "plain", GPT2, plain))(TOKENS)
    np.testing.assert_array_equal(found, expected)

    weights = weights_of(NEOX)
    renamed = {name.replace("embed_out", "lm_head"): each for name, each in weights.items()}
    renamed["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    expected = from_pretrained(write(tmp_path / "neox", NEOX, weights))(TOKENS)
    found = from_pretrained(write(tmp_path / "renamed", NEOX, renamed))(TOKENS)
    np.testing.assert_array_equal(found, expected)


def test_a_tied_head_may_be_stored_twice_if_it_is_equal(tmp_path):
    config = LLAMA | {"tie_word_embeddings": True}
    weights = weights_of(config)
    both = weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}
    model = from_pretrained(write(tmp_path / "equal", config, both))
    save_pretrained(model, tmp_path / "copy")
    assert_same_bytes(read(tmp_path / "copy"), weights)
    both["lm_head.weight"] = both["lm_head.weight"] + 1
    with pytest.raises(InputError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        from_pretrained(write(tmp_path / "other", config, both))


@pytest.mark.parametrize("on_mesh", [False, True])
def test_weights_that_are_not_finite_are_warned_of_by_name(on_mesh, tmp_path, caplog):
    weights = weights_of(LLAMA)
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    weights["model.norm.weight"][0] = np.inf
    mesh = build_mesh(MeshConfig(fsdp=2, tensor=4)) if on_mesh else None
    with caplog.at_level(logging.WARNING, logger="mjx"):
        from_pretrained(write(tmp_path / "source", LLAMA, weights), mesh=mesh)
    [record] = caplog.records
    assert "model.layers.1.mlp.up_proj.weight" in record.getMessage()
    assert "model.norm.weight" in record.getMessage()
    assert "model.layers.0.mlp.up_proj.weight" not in record.getMessage()


def changed(weights, **changes):
    result = dict(weights)
    for name, value in changes.items():
        if value is None:
            del result[name]
        else:
            result[name] = value
    return result


DOWN, NORM = "model.layers.1.mlp.down_proj.weight", "model.norm.weight"
DAMAGE = {
    "missing": ({DOWN: None}, r"1 missing \(model\.layers\.1\.mlp\.down_proj\.weight\)"),
    "unknown": ({"model.extra.weight": np.ones(3, np.float32)}, r"1 unknown \(model\.extra\.weight\)"),
    "of a third layer": ({DOWN.replace("1", "2"): np.ones((32, 48), np.float32)}, "unknown"),
    "transposed": ({DOWN: np.ones((48, 32), np.float32)}, r"down_proj\.weight has the shape \[48, 32\]"),
    "of another width": ({NORM: np.ones(31, np.float32)}, r"model\.norm\.weight has the shape \[31\]"),
    "quantised": ({DOWN: np.ones((32, 48), np.int8)}, r"down_proj\.weight holds int8"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_tensors_that_do_not_fit_are_named(kind, tmp_path):
    changes, sentence = DAMAGE[kind]
    source = write(tmp_path / "source", LLAMA, changed(weights_of(LLAMA), **changes))
    with pytest.raises(InputError, match=sentence):
        from_pretrained(source)


def test_a_model_of_our_own_says_all_that_transformers_would_otherwise_assume(tmp_path):
    model = from_pretrained(write(tmp_path / "source", LLAMA, weights_of(LLAMA)))
    own = PretrainedModel(model.config, model.parameters)
    save_pretrained(own, tmp_path / "own", max_positions=33, token_ids={"eos_token_id": 7})
    written = json.loads((tmp_path / "own" / "config.json").read_text())
    assert written["architectures"] == ["LlamaForCausalLM"]
    assert written["head_dim"] == 8
    assert written["max_position_embeddings"] == 33
    assert [written[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [None, 7, None]
    np.testing.assert_array_equal(from_pretrained(tmp_path / "own")(TOKENS), model(TOKENS))


def test_longrope_is_written_with_the_lengths_that_older_versions_read(tmp_path):
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    phi3 = {
        **{key: value for key, value in LLAMA.items() if key != "some_url"},
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "max_position_embeddings": 64,
        "original_max_position_embeddings": 16,
        "rope_scaling": {"type": "longrope", **factors},
    }
    model = from_pretrained(write(tmp_path / "source", phi3, weights_of(phi3)))
    save_pretrained(PretrainedModel(model.config, model.parameters), tmp_path / "own", architecture="phi3")
    written = json.loads((tmp_path / "own" / "config.json").read_text())
    assert written["rope_scaling"] == {"type": "longrope", **factors}
    assert written["max_position_embeddings"] == 64
    assert written["original_max_position_embeddings"] == 16
    save_pretrained(PretrainedModel(model.config, model.parameters), tmp_path / "llama", architecture="llama")
    assert json.loads((tmp_path / "llama" / "config.json").read_text())["rope_scaling"]["factor"] == 4


def test_what_an_architecture_cannot_hold_is_named(tmp_path):
    model = from_pretrained(write(tmp_path / "source", NEOX, weights_of(NEOX)))
    with pytest.raises(InputError, match=r"llama cannot hold this model: it has no .*parallel_residual"):
        save_pretrained(model, tmp_path / "copy", architecture="llama")
    assert not (tmp_path / "copy").exists()
