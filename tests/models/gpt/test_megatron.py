"""GPT against Megatron-Core 0.16.1 on the CPU: the goldens hold its weights, logits and gradients."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from oracles import megatron
from oracles.difference import Limits

from mjx.models.gpt import GPTConfig
from mjx.models.gpt.megatron import megatron_name_map
from mjx.models.megatron import read_settings, settings_of
from mjx.trees import flatten

GOLDENS = Path(__file__).parents[2] / "goldens" / "megatron"
CASES = sorted(path.stem for path in GOLDENS.glob("*.npz"))
STRICT = Limits(outputs=1e-5, loss=1e-6, gradients=1e-4, rounding=0.0)


def config_of(name: str, **changes) -> GPTConfig:
    """The config of a golden; the first where it does not say its activation."""
    _, config = megatron.configs(megatron.read(GOLDENS / f"{name}.npz"), **changes)[0]
    assert isinstance(config, GPTConfig)
    return config


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_megatron_to_1e_5_and_every_gradient_to_1e_4_relative(name):
    path = GOLDENS / f"{name}.npz"
    report = megatron.compare(path, STRICT)
    assert report.result == "equal", report.sentences()
    case, compared = megatron.read(path), report.compared
    assert {each.name for each in compared.outputs} == {"logits"}
    assert compared.outputs[0].absolute <= 1e-5
    assert [each.name for each in compared.losses] == ["loss"]
    assert {each.name for each in compared.gradients} == {f"gradient of {key}" for key in case.gradients}


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
    assert family == "gpt"
    resolved = config.attention.resolve(config.hidden_size)
    assert dataclasses.replace(config, attention=resolved) == dataclasses.replace(
        returned, attention=returned.attention.resolve(returned.hidden_size)
    )


@pytest.mark.parametrize("remat", ["selective", "full"])
def test_recomputation_and_chunked_loss_and_padded_vocabulary_change_no_gradient(remat):
    path, changes = GOLDENS / "qwen3.npz", {"remat": remat, "loss_chunks": 4, "vocab_divisor": 48}
    names = megatron_name_map(config_of("qwen3", **changes))
    parameters = names.to_ours(megatron.read(path).weights)
    assert flatten(parameters)["embedding.weight"].shape[0] == 96
    report = megatron.compare(path, STRICT, **changes)
    assert report.result == "equal", report.sentences()
    assert len(report.compared.gradients) == len(names.theirs)
