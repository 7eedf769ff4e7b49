"""Layers with experts equal Megatron-Core 0.16.1's: by its settings, with its tensors."""

import dataclasses
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from goldens.megatron_moe import cases

from mjx.models.common.context import Context
from mjx.models.common.moe import MoEConfig, RouterConfig
from mjx.models.common.moe.balance import Said
from mjx.models.common.moe.router import Routing
from mjx.models.common.parameter import bind, parameters_of
from mjx.models.interop.megatron.moe import moe_rows
from mjx.models.interop.name_map import NameMap
from mjx.models.megatron import read_settings
from mjx.trees import Tree

with np.load(Path(cases.__file__).with_name("layers.npz")) as file:
    GOLDENS = dict(file)
LOSSES = {
    "load_balancing_loss": "load_balancing_loss",
    "sequence_load_balancing_loss": "seq_load_balancing_loss",
    "global_load_balancing_loss": "global_load_balancing_loss",
    "router_z_loss": "z_loss",
}
"""Our names → Megatron's."""


def config_of(name: str) -> MoEConfig:
    settings = {**cases.BASE, **cases.CASES[name], "vocab_size": 8, "position_embedding_type": "none"}
    _, config = read_settings(settings, name)
    return config.moe


@functools.cache
def abstract(config: MoEConfig):
    return nnx.eval_shape(
        lambda: config.build(cases.HIDDEN, std=1.0, output_std=1.0, rngs=nnx.Rngs(params=jax.random.key(0)))
    )


class Chosen:
    """In a router's place: what it said."""

    def __init__(self, *routing):
        self.routing = Routing(*routing)

    def __call__(self, x, context):
        return self.routing, Said({}, {})


@functools.cache
def behind_router(config: MoEConfig):
    """The layer but its router: `(parameters, x, probabilities), ids, slope → y, gradients`."""

    def loss(inputs, ids, slope):
        parameters, x, probabilities = inputs
        layer = bind(abstract(config), parameters)
        layer.router = Chosen(ids, probabilities)
        y = layer(x, Context()).y
        return jnp.sum(y * slope), y

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def without_choice(config: MoEConfig) -> MoEConfig:
    """One config for all layers that differ in their routers only."""
    changes = {} if config.pad_to_capacity else {"capacity_factor": None, "drop_by": "probability"}
    return dataclasses.replace(config, router=RouterConfig(normalized=config.top_k > 1), **changes)


def run(name: str) -> dict[str, np.ndarray]:
    """What mjx makes of a case, by the golden's names."""
    config = config_of(name)
    layer, shared = abstract(config), without_choice(config)
    names = NameMap(moe_rows(config, "layer", "moe"), 1, lambda *_: None, {"moe": parameters_of(layer)})
    shapes = {key.removeprefix("layer."): shape for key, shape in names.theirs.items()}
    weights = cases.weights(name, shapes)
    parameters = names.to_ours({f"layer.{key}": array for key, array in weights.items()})["moe"]
    x, slope, padding = cases.read_by(name), cases.slope_of(name), cases.padding_of(name)
    counted = jnp.ones(x.shape[:2]) if padding is None else jnp.where(padding, 0.0, 1.0)

    def route(router: Tree, x, training=True):
        (ids, chosen), said = bind(layer.router, router)(x, Context(counted=counted, training=training))
        return (chosen, said.losses), (ids, said.statistics)

    (chosen, losses), pull, (ids, statistics) = jax.vjp(route, parameters["router"], x, has_aux=True)
    unread = parameters_of(abstract(shared))["router"]
    rest = {**parameters, "router": jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), unread)}
    (_, y), (slopes, dx, d_chosen) = behind_router(shared)((rest, x, chosen), ids, slope)
    d_router, more = pull((d_chosen, jax.tree.map(jnp.ones_like, losses)))
    tree = jax.tree.map(np.asarray, {"moe": {**slopes, "router": d_router}})
    found = {f"g/{key.removeprefix('layer.')}": array for key, array in names.to_theirs(tree).items()}
    found |= {"y": y, "g/x": dx + more}
    for ours, theirs in LOSSES.items():
        if ours in statistics:
            found[f"aux/{theirs}"] = (statistics[ours].array / statistics["tokens"].array)[None]
    if config.router.expert_bias_rate is not None:
        said = {key: each.array for key, each in statistics.items()}
        found["tokens"] = said["load"] - said["dropped"]
        found["expert_bias"] = config.after_step(parameters, said)["router"]["expert_bias"]
    if config.router.sinkhorn:  # chooses otherwise in evaluation
        (chosen, _), (ids, _) = route(parameters["router"], x, training=False)
        found["y_eval"] = behind_router(shared)((rest, x, chosen), ids, slope)[0][1]
    return found


@pytest.mark.parametrize("name", cases.CASES)
def test_outputs_gradients_losses_and_biases_equal_megatron_s_to_2e_6(name):
    found = run(name)
    expected = {
        key.removeprefix(f"{name}/"): array for key, array in GOLDENS.items() if key.startswith(f"{name}/")
    }
    kept = [key for key in found if not re.match(r"g/experts\.local_experts\.[1-9]|.*expert_bias", key)]
    assert set(kept) | {"expert_bias"} == expected.keys() | {"expert_bias"}
    for key, array in expected.items():
        scale = max(1.0, np.abs(array).max())
        np.testing.assert_allclose(found[key], array, rtol=0, atol=2e-6 * scale, err_msg=key)
