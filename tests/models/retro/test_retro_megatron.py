"""RETRO against Megatron-Core 0.12.3 on the CPU: the goldens hold its weights, outputs and gradients."""

from pathlib import Path

import numpy as np
import pytest
from oracles import megatron

from mjx.models.common.parameter import parameters_of
from mjx.models.family import abstract_model, load_family
from mjx.models.megatron import read_settings, settings_of
from mjx.models.retro import RetroConfig
from mjx.trees import flatten

GOLDENS = Path(__file__).parents[2] / "goldens" / "megatron_retro"
CASES = sorted(path.stem for path in GOLDENS.glob("*.npz"))


@pytest.mark.parametrize("name", CASES)
def test_logits_and_every_gradient_equal_megatron(name):
    report = megatron.compare(GOLDENS / f"{name}.npz")
    assert report.result == "equal", report.sentences()
    assert report.compared is not None
    gradients = megatron.read(GOLDENS / f"{name}.npz").gradients
    assert {each.name for each in report.compared.gradients} >= {f"gradient of {key}" for key in gradients}


@pytest.mark.parametrize("name", CASES)
def test_names_and_settings_survive_the_way_there_and_back(name):
    case = megatron.read(GOLDENS / f"{name}.npz")
    _, config = megatron.configs(case)[0]
    known = load_family("retro").megatron
    assert known is not None
    names = known.name_map(config)
    back = names.to_theirs(names.to_ours(case.weights))
    assert back.keys() == case.weights.keys()
    for key, tensor in case.weights.items():
        np.testing.assert_array_equal(back[key], tensor, err_msg=key)
    family, returned = read_settings(settings_of(config), "Megatron-LM")
    assert family == "retro"
    assert known.canonical(returned) == known.canonical(config)


def test_parameters_are_as_many_as_megatrons_tests_say():
    """Of 12 layers of 16 features: a look has 1,088, the two layers of the encoder 4,400 and 3,280."""
    from mjx.models.common.attention import AttentionConfig
    from mjx.models.common.mlp import MLPConfig

    config = RetroConfig(
        num_layers=12,
        hidden_size=16,
        vocab_size=64,
        attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
        mlp=MLPConfig(features=64, bias=True),
        chunk_length=4,
        retrieved_length=8,
    )
    assert config.looking == (6, 9, 12)
    shapes = flatten(parameters_of(abstract_model(config)))
    sizes = {path: leaf.size for path, leaf in shapes.items()}
    looks = sum(size for path, size in sizes.items() if "chunked_attention." in path)
    assert looks == 3 * 1088
    assert sum(size for path, size in sizes.items() if path.startswith("encoder.")) == 4400 + 3280
