"""An encoder that is laid out by a table of its own: whole on every device, with more rows apart."""

import dataclasses

import jax
import numpy as np
import pytest
from families.multimodal import tiny
from families.training import STEPS, arrays_of, assert_same, begin, train, trained, trainer

from mjx.errors import InputError
from mjx.models.common.parameter import parameter_specs
from mjx.models.family import abstract_model
from mjx.plan.explain.activations import activations_of
from mjx.plan.explain.placement import place
from mjx.sharding import MeshConfig, Rule, ShardingConfig, build_mesh
from mjx.training.optimizer import OptimizerConfig
from mjx.training.schedule import ScheduleConfig
from mjx.training.trainer import Trainer

MESH = MeshConfig(data=2, tensor=4)
SIZES = {"data": 2, "tensor": 4}
WHOLE = {
    "batch": Rule(activations=("data", "fsdp", "expert", "tensor")),
    **dict.fromkeys(("heads", "kv_heads", "mlp", "residual_sequence"), Rule()),
}


def three_heads():
    """Which `tensor` does not divide."""
    variant = tiny()[0]
    vision = variant.config.vision
    attention = dataclasses.replace(vision.attention, num_heads=3)
    vision = dataclasses.replace(vision, attention=attention)
    return dataclasses.replace(variant, config=dataclasses.replace(variant.config, vision=vision), rows=8)


def on_mesh(variant, sharding):
    return Trainer(
        variant.config,
        steps=STEPS,
        batch=variant.arrays(),
        mesh=build_mesh(MESH),
        sharding=sharding,
        optimizer=OptimizerConfig(),
        schedule=ScheduleConfig(learning_rate=3e-3, warmup_steps=1),
        dropout_seed=None,
    )


def test_an_encoder_whose_heads_are_whole_trains_as_on_one_device():
    variant = three_heads()
    made = on_mesh(variant, ShardingConfig(modules={"vision": WHOLE}))
    split = {path: leaf.sharding.spec for path, leaf in _leaves(begin(made, variant).parameters)}
    assert all("tensor" not in spec for path, spec in split.items() if "vision" in path)
    assert any("tensor" in spec for path, spec in split.items() if "language" in path)
    state, losses = train(made, variant, begin(made, variant), range(STEPS))
    assert_same(variant, arrays_of(state) | losses, trained(variant, "one device"))


def test_without_it_the_heads_are_refused():
    with pytest.raises(InputError, match="heads"):
        trainer(three_heads(), "data 2 × tensor 4")


def test_activations_are_listed_by_the_table_of_their_module():
    variant = three_heads()
    rules = ShardingConfig(modules={"vision": WHOLE}).build()
    batch = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in variant.arrays().items()}
    every = activations_of(abstract_model(variant.config), batch, SIZES, rules)
    shares = {"vision": set(), "": set()}
    for one in every:
        placed = place(one.name, one.axes, one.leaf, rules.of(one.module), SIZES, "activation")
        shares[one.module].add(placed.local_shape[0])
    assert shares["vision"] == {1}
    assert shares[""] >= {4}


@pytest.mark.parametrize("module", ["visoin", "language"])
def test_a_table_of_a_module_that_has_none_is_refused(module):
    rules = ShardingConfig(modules={module: WHOLE}).build()
    with pytest.raises(InputError, match=f"'{module}', which is no module .* are vision"):
        parameter_specs(abstract_model(tiny()[0].config), rules, SIZES)


def _leaves(tree):
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [
        (jax.tree_util.keystr(path), leaf) for path, leaf in found if isinstance(leaf, jax.Array | np.ndarray)
    ]
