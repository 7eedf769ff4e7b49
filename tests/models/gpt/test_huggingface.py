"""Hugging Face's decoders against transformers: the goldens hold configs and some of the logits."""

import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import pytest
from oracles import huggingface
from oracles.difference import Limits, Scale, difference

from mjx.errors import InputError
from mjx.models.gpt.huggingface import ARCHITECTURES
from mjx.models.huggingface import PretrainedModel, from_pretrained, save_pretrained
from mjx.models.huggingface.tensor_writer import TensorWriter
from mjx.sharding import MeshConfig, build_mesh

STRICT = Scale(limit=1e-5, scale=1.0)
GOLDENS = Path(__file__).parents[2] / "goldens" / "huggingface"


def script(name: str):
    """A module that stands beside the goldens."""
    spec = importlib.util.spec_from_file_location(name, GOLDENS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


variants = script("variants")
with np.load(GOLDENS / "logits.npz") as file:
    LOGITS = dict(file)
CASES = list(dict.fromkeys(name.split("/")[0] for name in LOGITS))
BY_TYPE = {a.model_type: a for a in ARCHITECTURES if not a.class_name.endswith("TextModel")}
"""Those that are only inside of others are held against transformers there."""
SEEDS = {
    kind: random.Random(kind).sample(range(1000, 100_000), 4)[: 2 if kind in variants.MIXTURES else 4]
    for kind in BY_TYPE
}
"""Other variants than the goldens."""
OPTIMIZED = ("gemma3_text 24314",)
"""Compiled in a hurry, rounding takes this one 1.2e-5 away from transformers."""


def write_checkpoint(folder: Path, kind: str, seed: int, config: dict) -> dict[str, np.ndarray]:
    """The folder of a variant; returns its weights."""
    architecture = BY_TYPE[kind]
    shapes = architecture.name_map(architecture.config.to_ours(config, "config.json")).theirs
    weights = variants.weights_of(kind, shapes, seed)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    with TensorWriter(folder, {name: (each.shape, each.dtype) for name, each in weights.items()}) as writer:
        for name, each in weights.items():
            writer.write(name, each)
    return weights


def sample(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The logits that the goldens hold (make_goldens.py)."""
    told = np.asarray(logits)[mask.astype(bool)].reshape(-1)
    return told[np.random.RandomState(0).permutation(told.size)[:200]]


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_those_of_transformers(case, tmp_path):
    kind, seed = case.split()[0], int(case.split()[1])
    config = json.loads(str(LOGITS[f"{case}/config"]))
    weights = write_checkpoint(tmp_path, kind, seed, config)
    assert (
        variants.fingerprint({name: each.shape for name, each in weights.items()})
        == LOGITS[f"{case}/tensors"]
    )
    model = from_pretrained(tmp_path)
    assert model.config.num_parameters() == sum(each.size for each in weights.values())
    tokens, mask = variants.inputs_of(config["vocab_size"], seed)
    theirs = LOGITS[f"{case}/logits"]
    found = difference("logits", sample(model(tokens, attention_mask=mask), mask), theirs, STRICT)
    assert found.within, found.sentence
    if f"{case}/loss" in LOGITS:
        assert_loss(tmp_path, tokens, LOGITS[f"{case}/loss"])


def assert_loss(folder: Path, tokens: np.ndarray, theirs: np.ndarray) -> None:
    """The cross-entropy, whatever transformers would add for the balance of experts."""
    inputs = {"input_ids": tokens, "labels": tokens}
    compared = huggingface.compare_folder(folder, inputs, {"loss": theirs}, Limits(rounding=0.0))
    assert not compared.failures(), compared.failures()
    assert [each.name for each in compared.losses] == ["loss"]
    outputs = from_pretrained(folder).outputs(**inputs)
    np.testing.assert_allclose(outputs["loss"], theirs, rtol=1e-5)
    assert list(outputs) == ["loss", "last_hidden_state", "logits"]


@pytest.mark.parametrize("kind", BY_TYPE)
def test_what_is_written_describes_the_same_model(kind):
    architecture = BY_TYPE[kind]
    for seed in range(60):
        ours = architecture.config.to_ours(variants.config_of(kind, seed), "config.json")
        returned = architecture.config.to_ours(architecture.config.to_theirs(ours), "config.json")
        assert architecture.canonical(returned) == architecture.canonical(ours)


@pytest.mark.parametrize("heads", [(4, 1), (8, 2)])
def test_a_mesh_gives_the_same_logits_with_few_kv_heads_and_odd_batches(heads, tmp_path):
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "head_dim": 8,
    }
    write_checkpoint(tmp_path, "llama", 0, config)
    tokens = np.random.RandomState(0).randint(0, 61, (3, 13))
    mask = np.ones_like(tokens)
    mask[1, :5] = 0
    want = from_pretrained(tmp_path)(tokens, attention_mask=mask)
    model = from_pretrained(tmp_path, mesh=build_mesh(MeshConfig(fsdp=2, tensor=4)))
    found = model(tokens, attention_mask=mask)
    np.testing.assert_allclose(found[mask == 1], want[mask == 1], atol=1e-5, rtol=0)
    np.testing.assert_allclose(model(tokens), from_pretrained(tmp_path)(tokens), atol=1e-5, rtol=0)


def test_padding_for_the_mesh_stands_at_no_position_that_the_model_lacks(tmp_path):
    # 9 learned positions, and 12 tokens on the mesh.
    gpt2 = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": 61,
        "n_embd": 32,
        "n_layer": 1,
        "n_head": 4,
        "n_positions": 9,
    }
    # Rows of 9 tokens take the short factors, and rows of 12 would take the long ones.
    phi3 = {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
        "original_max_position_embeddings": 10,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    }
    tokens = np.random.RandomState(0).randint(0, 61, (2, 9))
    for config in (gpt2, phi3):
        folder = tmp_path / config["model_type"]
        write_checkpoint(folder, config["model_type"], 0, config)
        model = from_pretrained(folder, mesh=build_mesh(MeshConfig(fsdp=2, tensor=4)))
        np.testing.assert_allclose(model(tokens), from_pretrained(folder)(tokens), atol=1e-5, rtol=0)


def test_heads_that_the_mesh_cannot_split_are_named(tmp_path):
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 61,
        "hidden_size": 48,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 6,
    }
    write_checkpoint(tmp_path, "llama", 0, config)
    with pytest.raises(InputError, match="heads' of size 6 does not divide over tensor 4"):
        from_pretrained(tmp_path, mesh=build_mesh(MeshConfig(fsdp=2, tensor=4)))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        pytest.param(kind, seed, id=name, marks=[pytest.mark.optimized] if name in OPTIMIZED else [])
        for kind, seeds in SEEDS.items()
        for seed in seeds
        for name in [f"{kind} {seed}"]
    ],
)
def test_transformers_agrees_in_both_directions(kind, seed, tmp_path):
    """To transformers by its own loader, and from it by ours."""
    pytest.importorskip("transformers", minversion="5")
    pytest.importorskip("torch")
    goldens = script("make_goldens")
    config = variants.config_of(kind, seed)
    tokens, mask = variants.inputs_of(config["vocab_size"], seed)
    shapes, theirs = goldens.theirs_of(kind, seed)
    source = tmp_path / "theirs"
    weights = write_checkpoint(source, kind, seed, config)
    assert {name: each.shape for name, each in weights.items()} == shapes
    expected = goldens.logits_of(theirs, tokens, mask)
    inputs = {"input_ids": tokens, "attention_mask": mask}
    compared = huggingface.compare_folder(source, inputs, {"logits": expected}, Limits(rounding=0.0))
    assert not compared.failures(), compared.failures()
    assert compared.outputs[0].absolute <= 1e-5
    assert len(compared.weights) == len(weights)
    if kind in variants.MIXTURES and tokens.shape[1] > 1:
        assert_loss(source, tokens, goldens.loss_of(theirs, tokens, tokens))

    ours = from_pretrained(source)
    logits = np.asarray(ours(tokens, attention_mask=mask))
    export = tmp_path / "written"
    save_pretrained(PretrainedModel(ours.config, ours.parameters), export, architecture=kind)
    returned = goldens.logits_of(goldens.loaded(export), tokens, mask)
    found = difference("logits", returned, logits, STRICT, mask.astype(bool)[..., None])
    assert found.within, found.sentence
