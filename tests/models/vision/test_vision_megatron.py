"""What sees against Megatron-Core 0.16.1 on the CPU: the goldens hold its weights, outputs and gradients."""

from pathlib import Path

import numpy as np
import pytest
from oracles import megatron
from oracles.difference import Limits

from mjx.models.family import load_family
from mjx.models.megatron import read_settings, settings_of

GOLDENS = Path(__file__).parents[2] / "goldens" / "megatron_vision"
CASES = sorted(path.stem for path in GOLDENS.glob("*.npz"))
LIMITS = Limits(outputs=1e-5, loss=1e-6, gradients=1e-4)
"""The loss of an encoder's case is a mean of numbers around zero, which rounding moves by more."""


def config_of(name: str):
    _, config = megatron.configs(megatron.read(GOLDENS / f"{name}.npz"))[0]
    return config


def test_there_are_encoders_and_language_models_that_see():
    assert {config_of(name).family for name in CASES} == {"vision", "multimodal"}


@pytest.mark.parametrize("name", CASES)
def test_outputs_masks_and_every_gradient_equal_megatron(name):
    path = GOLDENS / f"{name}.npz"
    report = megatron.compare(path, LIMITS)
    assert report.result == "equal", report.sentences()
    case, compared = megatron.read(path), report.compared
    outputs = ["logits", "new_loss_mask"] if config_of(name).family == "multimodal" else ["hidden"]
    assert sorted(each.name for each in compared.outputs) == outputs
    assert [each.name for each in compared.losses] == ["loss"]
    assert {each.name for each in compared.gradients} >= {f"gradient of {key}" for key in case.gradients}


@pytest.mark.parametrize("name", CASES)
def test_names_and_settings_survive_the_way_there_and_back(name):
    weights, config = megatron.read(GOLDENS / f"{name}.npz").weights, config_of(name)
    known = load_family(config.family).megatron
    assert known is not None
    names = known.name_map(config)
    back = names.to_theirs(names.to_ours(weights))
    assert back.keys() == weights.keys()
    for key, tensor in weights.items():
        np.testing.assert_array_equal(back[key], tensor, err_msg=key)
    family, returned = read_settings(settings_of(config), "Megatron-LM")
    assert family == config.family
    assert known.canonical(returned) == known.canonical(config)
