"""The whole sub-layer against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference import moe as reference

from mjx.models.common.context import Context
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig, RouterConfig
from mjx.models.common.parameter import bind, parameters_of
from mjx.trees import flatten, unflatten

SHAPE = (2, 7, 6)
CONFIGS = {
    "latent, shared with a gate, biases, dropped tokens": MoEConfig(
        experts=4,
        mlp=MLPConfig(features=5, activation="silu", gated=True, bias=True),
        router=RouterConfig(scores="sigmoid", expert_bias_rate=1e-3, bias=True, scaling=1.5),
        latent=3,
        shared_features=4,
        shared_gate=True,
        capacity_factor=0.8,
    ),
    "probabilities on the input": MoEConfig(
        experts=3,
        top_k=1,
        mlp=MLPConfig(features=5, bias=True),
        router=RouterConfig(scores="sigmoid", normalized=False),
        probabilities_on="input",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_formula_to_1e_5(name):
    config, draw = CONFIGS[name], np.random.RandomState(0)
    layer = nnx.eval_shape(
        lambda: config.build(SHAPE[-1], std=1.0, output_std=1.0, rngs=nnx.Rngs(params=jax.random.key(0)))
    )
    shapes = {path: leaf.shape for path, leaf in flatten(parameters_of(layer)).items()}
    values = {path: (0.5 * draw.randn(*shape)).astype(np.float32) for path, shape in shapes.items()}
    x = draw.randn(*SHAPE).astype(np.float32)
    context = Context(counted=jnp.ones(SHAPE[:2]), training=True)
    y = jax.jit(lambda tree, x: bind(layer, tree)(x, context).y)(unflatten(values), x)
    expected = reference.moe(config, values, x, training=True)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
