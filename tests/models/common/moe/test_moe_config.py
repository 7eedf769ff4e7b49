"""Configs of experts that cannot work are refused in a sentence."""

import pytest

from mjx.errors import InputError
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import DispatchConfig, MoEConfig, RouterConfig
from mjx.models.family import ModelConfig
from mjx.models.gpt import PUBLISHED
from mjx.parse import parse, to_tree
from mjx.trees import merge

SIGMOID = {"scores": "sigmoid"}
SINKHORN = {"sinkhorn": True, "normalized": False}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"load_balancing_loss": -0.1}, r"load_balancing_loss = -0\.1 must be positive, or 0 for none"),
        (
            {"sequence_load_balancing_loss": float("nan")},
            r"sequence_load_balancing_loss = nan must be positive",
        ),
        ({"global_load_balancing_loss": -1.0}, r"global_load_balancing_loss = -1\.0 must be positive"),
        ({"z_loss": -1e-3}, r"z_loss = -0\.001 must be positive, or 0 for none"),
        ({"scaling": 0.0}, r"scaling = 0\.0 must be positive"),
        ({"scaling": 1e31}, r"scaling = 1e\+31 must be from 1e-30 to 1e\+30"),
        ({"jitter": 1.0}, r"jitter = 1\.0 must be at least 0 and below 1"),
        ({"jitter": -0.1}, r"jitter = -0\.1 must be at least 0 and below 1"),
        ({**SIGMOID, "expert_bias_rate": 0.0}, r"expert_bias_rate = 0\.0 must be positive, or null for no"),
        (
            {"expert_bias_rate": 1e-3},
            r"expert_bias_rate needs moe\.router\.scores = sigmoid or sqrt-softplus",
        ),
        ({"groups": 4}, r"router\.groups and moe\.router\.top_groups go together, but top_groups is null"),
        ({"top_groups": 2}, r"router\.groups and moe\.router\.top_groups go together, but groups is null"),
        ({**SINKHORN, "load_balancing_loss": 0.1}, r"sinkhorn = true balances the experts by itself"),
        ({**SINKHORN, "global_load_balancing_loss": 0.1}, r"it goes with no load-balancing loss"),
        ({**SINKHORN, **SIGMOID, "expert_bias_rate": 1e-3}, r"and no expert_bias_rate"),
        ({"sinkhorn": True}, r"sinkhorn = true needs moe\.router\.normalized = false, and no groups"),
        ({**SINKHORN, "groups": 2, "top_groups": 1}, r"sinkhorn = true needs .*, and no groups"),
    ],
)
def test_a_router_is_refused(options, sentence):
    with pytest.raises(InputError, match=rf"moe\.router\.{sentence}|{sentence}"):
        RouterConfig(**options)


def groups(number: int, top: int) -> dict[str, RouterConfig]:
    return {"router": RouterConfig(groups=number, top_groups=top)}


ALL = RouterConfig(normalized=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"experts": 0}, r"moe\.experts = 0 must be positive"),
        ({"top_k": 0}, r"moe\.top_k = 0 must be positive"),
        ({"top_k": 9}, r"moe\.top_k = 9 is more than moe\.experts = 8"),
        ({"top_k": 1}, r"moe\.top_k = 1 needs moe\.router\.normalized = false"),
        ({"shared_features": 0}, r"moe\.shared_features = 0 must be positive, or null for none"),
        ({"latent": 0}, r"moe\.latent = 0 must be positive, or null for none"),
        ({"shared_gate": True}, r"moe\.shared_gate = true needs moe\.shared_features, which is null"),
        ({"capacity_factor": 0.0}, r"moe\.capacity_factor = 0\.0 must be positive, or null to drop nothing"),
        ({"pad_to_capacity": True}, r"moe\.pad_to_capacity = true needs moe\.capacity_factor, which is null"),
        (
            {"capacity_factor": 1.0, "router": RouterConfig(**SINKHORN)},
            r"moe\.capacity_factor goes with .* none, not with moe\.router\.sinkhorn = true",
        ),
        ({"probabilities_on": "input"}, r"moe\.probabilities_on = input needs moe\.top_k = 1, not 2"),
        (groups(3, 1), r"moe\.router\.groups = 3 does not divide moe\.experts = 8"),
        (groups(0, 1), r"moe\.router\.groups = 0 does not divide moe\.experts = 8"),
        (groups(4, 5), r"moe\.router\.top_groups = 5 must be from 1 to moe\.router\.groups = 4"),
        (groups(4, 0), r"moe\.router\.top_groups = 0 must be from 1 to"),
        ({**groups(4, 2), "top_k": 3}, r"moe\.router\.top_groups = 2 does not divide moe\.top_k = 3"),
        (
            {**groups(4, 1), "top_k": 4},
            r"moe\.top_k = 4 is more than the 2 experts in moe\.router\.top_groups = 1 groups",
        ),
    ],
)
def test_a_mixture_is_refused(options, sentence):
    given = {"experts": 8, "mlp": MLPConfig(features=4), **options}
    with pytest.raises(InputError, match=sentence):
        MoEConfig(**given)


@pytest.mark.parametrize("cell", [0.0, float("inf")])
def test_a_cell_that_has_no_size_is_refused(cell):
    with pytest.raises(InputError, match=rf"moe\.dispatch\.cell = {cell} must be"):
        DispatchConfig(cell=cell)


def test_the_extremes_that_work_are_taken():
    mlp = MLPConfig(features=4)
    MoEConfig(experts=1, top_k=1, mlp=mlp, router=ALL)
    MoEConfig(experts=8, top_k=8, mlp=mlp)
    MoEConfig(experts=8, top_k=8, mlp=mlp, **groups(4, 4))
    MoEConfig(experts=8, top_k=1, mlp=mlp, router=ALL, probabilities_on="input", capacity_factor=1e-3)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"router": {"z_loss": -1}}, "model.moe.router.z_loss = -1.0 must be positive, or 0 for none"),
        ({"dispatch": {"cell": 0}}, "model.moe.dispatch.cell = 0.0 must be positive"),
        ({"top_k": 9}, "model.moe.top_k = 9 is more than moe.experts = 8"),
    ],
)
def test_a_recipe_s_sentence_names_the_whole_key_once(section, sentence):
    tree = to_tree(PUBLISHED["mixtral-8x7b"]) | {"family": "gpt"}
    with pytest.raises(InputError) as error:
        parse(ModelConfig, merge(tree, {"moe": section}), "model")
    assert str(error.value) == sentence
