"""Encoders against transformers 5: the goldens hold what its classes return."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles.difference import Scale, difference

from mjx.errors import InputError
from mjx.models.bert import BertConfig
from mjx.models.bert.config_keys import canonical
from mjx.models.huggingface import from_pretrained, save_pretrained
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.huggingface.tensor_writer import TensorWriter
from mjx.models.interop.architectures import find_architecture, fitting_architecture
from mjx.sharding import MeshConfig, build_mesh

STRICT = Scale(limit=1e-5, scale=1.0)
GOLDENS = Path(__file__).parents[2] / "goldens" / "huggingface"


def script(name: str):
    """A module that stands beside the goldens."""
    spec = importlib.util.spec_from_file_location(name, GOLDENS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


variants, encoders = script("variants"), script("encoders")
with np.load(GOLDENS / "encoders.npz") as file:
    GOLDEN = dict(file)
CASES = list(encoders.CASES)


def ours(theirs: dict) -> BertConfig:
    family, architecture = find_architecture(theirs)
    assert family == "bert"
    return architecture.config.to_ours(theirs, "config.json")


def write(folder: Path, config: dict, weights: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    with TensorWriter(folder, {name: (each.shape, each.dtype) for name, each in weights.items()}) as writer:
        for name, each in weights.items():
            writer.write(name, each)
    return folder


def weights_of(case: str) -> dict[str, np.ndarray]:
    config = encoders.config_of(case)
    _, architecture = find_architecture(config)
    shapes = architecture.name_map(ours(config)).theirs
    return variants.weights_of(config["model_type"], shapes, CASES.index(case))


def expected(case: str) -> dict[str, np.ndarray]:
    outputs = {
        name.removeprefix(f"{case}/"): each for name, each in GOLDEN.items() if name.startswith(f"{case}/")
    }
    return {name: each for name, each in outputs.items() if name != "tensors"}


def assert_equal(found, case: str) -> None:
    """To 1e-5, where there is no padding."""
    real = encoders.inputs_of(case)["attention_mask"] > 0
    for name, theirs in expected(case).items():
        assert found[name].shape == theirs.shape, name
        where = np.broadcast_to(real[..., None], theirs.shape) if theirs.shape[:2] == real.shape else None
        apart = difference(name, np.asarray(found[name]), theirs, STRICT, where)
        assert apart.within, apart.sentence


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_losses_equal_those_of_transformers(case, tmp_path):
    weights = weights_of(case)
    shapes = {name: each.shape for name, each in weights.items()}
    assert variants.fingerprint(shapes) == GOLDEN[f"{case}/tensors"]
    model = from_pretrained(write(tmp_path / "theirs", encoders.config_of(case), weights))
    assert_equal(model.outputs(**encoders.inputs_of(case)), case)


@pytest.mark.parametrize("case", ["pre-training", "roberta, classes", "modernbert"])
def test_a_mesh_that_divides_neither_rows_nor_tokens_gives_the_same_outputs(case, tmp_path):
    folder = write(tmp_path / "theirs", encoders.config_of(case), weights_of(case))
    model = from_pretrained(folder, mesh=build_mesh(MeshConfig(data=1, fsdp=2, context=2, tensor=2)))
    assert_equal(model.outputs(**encoders.inputs_of(case)), case)


@pytest.mark.parametrize("case", CASES)
def test_config_and_tensors_survive_the_way_back(case, tmp_path):
    weights = weights_of(case)
    model = from_pretrained(write(tmp_path / "theirs", encoders.config_of(case), weights))
    kind = encoders.config_of(case)["model_type"]
    written = fitting_architecture(model.config, kind)
    assert written.class_name == encoders.CASES[case][0]
    said = written.config.to_theirs(model.config) | {
        "model_type": kind,
        "architectures": [written.class_name],
    }
    assert written.canonical(ours(said)) == written.canonical(model.config)
    save_pretrained(model, tmp_path / "ours")
    assert json.loads((tmp_path / "ours" / "config.json").read_text()) == {
        **encoders.config_of(case),
        "torch_dtype": "float32",
    }
    with HuggingFaceFolder(tmp_path / "ours").tensors() as tensors:
        assert sorted(tensors) == sorted(weights)
        for name, tensor in tensors.items():
            assert tensor.read().tobytes() == weights[name].tobytes(), name


def test_tied_copies_older_names_and_other_heads_of_a_checkpoint_are_read(tmp_path):
    """As the conversions of Google's checkpoints have them."""
    case, weights = "hidden tokens", weights_of("hidden tokens")
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): each
        for name, each in weights.items()
    }
    older["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    older["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"]
    older["bert.embeddings.position_ids"] = np.arange(20.0, dtype=np.float32)[None]
    older["bert.pooler.dense.weight"] = np.ones((32, 32), np.float32)
    older["bert.pooler.dense.bias"] = np.ones(32, np.float32)
    older["cls.seq_relationship.weight"] = np.ones((2, 32), np.float32)
    older["cls.seq_relationship.bias"] = np.ones(2, np.float32)
    model = from_pretrained(write(tmp_path / "older", encoders.config_of(case), older))
    assert_equal(model.outputs(**encoders.inputs_of(case)), case)


def test_the_first_rows_of_roberta_s_positions_come_back(tmp_path):
    weights = weights_of("roberta")
    table = weights["roberta.embeddings.position_embeddings.weight"]
    model = from_pretrained(write(tmp_path / "theirs", encoders.config_of("roberta"), weights))
    assert isinstance(model.config, BertConfig)
    assert model.config.max_positions == 20
    assert model.config.longest_row == 18
    save_pretrained(model, tmp_path / "ours")
    with HuggingFaceFolder(tmp_path / "ours").tensors() as tensors:
        back = tensors["roberta.embeddings.position_embeddings.weight"].read()
    assert back[:2].tobytes() == table[:2].tobytes()
    assert np.abs(table[:2]).min() > 0


def test_a_trained_model_is_written_as_the_class_of_its_heads():
    heads = {
        "BertForPreTraining": {},
        "BertForMaskedLM": {"pooler": False, "sentence_head": False},
        "BertModel": {"sentence_head": False, "head_transform": None, "head_bias": False},
        "BertForSequenceClassification": {
            **{"sentence_head": False, "head_transform": None, "head_bias": False, "classes": 4}
        },
    }
    for name, changes in heads.items():
        config = canonical(ours(encoders.config_of("pre-training")))
        assert fitting_architecture(dataclasses.replace(config, **changes)).class_name == name


@pytest.mark.parametrize(
    ("case", "change", "sentence"),
    [
        (
            "states",
            {"architectures": None},
            'config.json has no "architectures"; of the bert models mjx knows ',
        ),
        (
            "states",
            {"architectures": ["BertLMHeadModel"]},
            "['BertLMHeadModel']; of the bert models mjx knows",
        ),
        ("states", {"is_decoder": True}, '"is_decoder": true, which mjx does not compute'),
        ("states", {"position_embedding_type": "relative_key"}, '"position_embedding_type": "relative_key"'),
        (
            "states",
            {"tie_word_embeddings": False},
            '"tie_word_embeddings": false, which mjx does not compute',
        ),
        (
            "classes",
            {"problem_type": "multi_label_classification"},
            "with 3 labels, which mjx does not compute",
        ),
        ("classes", {"id2label": ["yes"]}, '"id2label": ["yes"], which should be an object of labels'),
        ("roberta", {"pad_token_id": None}, '"pad_token_id": null, which should be a number from 0 on'),
        ("modernbert", {"layer_types": ["linear"]}, '"layer_types": ["linear"], which should be 4 times'),
    ],
)
def test_what_mjx_would_compute_differently_is_refused(case, change, sentence):
    with pytest.raises(InputError) as refused:
        ours(encoders.config_of(case) | change)
    assert sentence in str(refused.value)


def test_inputs_that_are_none_of_the_model_s_are_named(tmp_path):
    model = from_pretrained(write(tmp_path / "m", encoders.config_of("states"), weights_of("states")))
    with pytest.raises(InputError, match="has no input pixel_values; it takes input_ids, attention_mask, "):
        model.outputs(input_ids=np.ones((1, 4)), pixel_values=np.ones((1, 4)))
    with pytest.raises(InputError, match="the model needs input_ids; it takes"):
        model.outputs(attention_mask=np.ones((1, 4)))
