"""T5 against Megatron-Core 0.16.1 on the CPU: the goldens hold its weights, logits and gradients."""

from pathlib import Path

import pytest
from oracles import megatron
from oracles.difference import Limits

from mjx.models.megatron import read_settings, settings_of
from mjx.models.t5 import PUBLISHED, T5Config
from mjx.models.t5.config_keys import canonical
from mjx.models.t5.megatron import megatron_name_map

GOLDENS = Path(__file__).parents[2] / "goldens" / "megatron_t5"
CASES = sorted(path.stem for path in GOLDENS.glob("*.npz"))
STRICT = Limits(outputs=1e-5, loss=1e-6, gradients=1e-4, rounding=0.0)


def config_of(name: str) -> T5Config:
    _, config = megatron.configs(megatron.read(GOLDENS / f"{name}.npz"))[0]
    assert isinstance(config, T5Config)
    return config


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_megatron_to_1e_5_and_every_gradient_to_1e_4_relative(name):
    path = GOLDENS / f"{name}.npz"
    report = megatron.compare(path, STRICT)
    assert report.result == "equal", report.sentences()
    case, compared = megatron.read(path), report.compared
    assert {each.name for each in compared.outputs} == {"logits"}
    assert {each.name for each in compared.gradients} == {f"gradient of {key}" for key in case.weights}


@pytest.mark.parametrize("name", CASES)
def test_config_and_tensors_survive_the_way_to_megatron_and_back(name):
    config = config_of(name)
    weights = megatron.read(GOLDENS / f"{name}.npz").weights
    names = megatron_name_map(config)
    back = names.to_theirs(names.to_ours(weights))
    assert {key: each.tobytes() for key, each in back.items()} == {
        key: each.tobytes() for key, each in weights.items()
    }
    family, returned = read_settings(settings_of(config), "args.json")
    assert family == "t5"
    assert canonical(returned) == canonical(config)


def test_megatrons_published_size_has_its_number_of_parameters():
    assert PUBLISHED["t5-megatron-220m"].num_parameters() == 221_314_560
