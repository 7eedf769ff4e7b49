"""BERT against Megatron-Core 0.16.1 on the CPU: the goldens hold its weights, outputs and gradients."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from oracles import megatron
from oracles.difference import Limits

from mjx.models.bert import PUBLISHED, BertConfig
from mjx.models.bert.megatron import megatron_name_map
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.token_model.head import HeadTransformConfig
from mjx.models.megatron import read_settings, settings_of

GOLDENS = Path(__file__).parents[2] / "goldens" / "megatron_bert"
CASES = sorted(path.stem for path in GOLDENS.glob("*.npz"))
STRICT = Limits(outputs=1e-5, loss=1e-6, gradients=1e-4, rounding=0.0)


def config_of(name: str) -> BertConfig:
    _, config = megatron.configs(megatron.read(GOLDENS / f"{name}.npz"))[0]
    assert isinstance(config, BertConfig)
    return config


def test_there_are_models_with_and_without_a_head_of_pairs():
    assert {config_of(name).sentence_head for name in CASES} == {True, False}


@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_megatron_to_1e_5_and_every_gradient_to_1e_4_relative(name):
    path = GOLDENS / f"{name}.npz"
    report = megatron.compare(path, STRICT)
    assert report.result == "equal", report.sentences()
    case, compared = megatron.read(path), report.compared
    pairs = ["binary_logits"] if config_of(name).sentence_head else []
    assert sorted(each.name for each in compared.outputs) == [*pairs, "logits"]
    assert [each.name for each in compared.losses] == ["loss"]
    assert {each.name for each in compared.gradients} >= {f"gradient of {key}" for key in case.gradients}


@pytest.mark.parametrize("name", CASES)
def test_the_name_map_returns_every_tensor_unchanged(name):
    weights = megatron.read(GOLDENS / f"{name}.npz").weights
    names = megatron_name_map(config_of(name))
    back = names.to_theirs(names.to_ours(weights))
    assert back.keys() == weights.keys()
    for key, tensor in weights.items():
        np.testing.assert_array_equal(back[key], tensor, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_a_config_survives_the_way_to_megatron_s_arguments_and_back(name):
    config = config_of(name)
    family, returned = read_settings(settings_of(config), "Megatron-LM")
    assert family == "bert"
    assert isinstance(returned, BertConfig)
    resolved = config.attention.resolve(config.hidden_size)
    assert dataclasses.replace(config, attention=resolved) == dataclasses.replace(
        returned, attention=returned.attention.resolve(returned.hidden_size)
    )


def test_a_model_is_as_large_as_megatron_says():
    """Its own test's model, whose vocabulary is its 100 rows; and BERT-large with 30,592 of them, with both
    heads."""
    tiny = BertConfig(
        num_layers=2,
        hidden_size=12,
        vocab_size=100,
        max_positions=4,
        attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
        mlp=MLPConfig(features=48, bias=True),
        head_transform=HeadTransformConfig(),
        head_bias=True,
        pooler=True,
        sentence_head=True,
    )
    assert tiny.num_parameters() == 6702
    large = dataclasses.replace(PUBLISHED["bert-megatron-345m"], vocab_size=30592)
    assert large.num_parameters() == 336_297_858
