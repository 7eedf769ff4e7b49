import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference import mlp as reference
from reference.mlp import ACTIVATIONS as DEFINED

from mjx.errors import InputError
from mjx.models.common.context import Context
from mjx.models.common.mlp import ACTIVATIONS, MLP, MLPConfig
from mjx.models.common.parameter import bind, parameters_of
from mjx.sharding import MeshConfig, build_mesh, use_mesh
from mjx.trees import flatten, unflatten

EMBED, FEATURES = 8, 12
X = np.random.RandomState(0).randn(2, 8, EMBED).astype(np.float32)


def filled(config: MLPConfig) -> tuple[MLP, dict[str, np.ndarray]]:
    """An MLP with large random parameters, biases too, and the parameters."""
    mlp = config.build(EMBED, std=0.02, output_std=0.02, rngs=nnx.Rngs(params=jax.random.key(0)))
    random = np.random.RandomState(1)
    values = {
        path: (0.4 * random.randn(*leaf.shape)).astype(np.float32)
        for path, leaf in flatten(parameters_of(mlp)).items()
    }
    return bind(mlp, unflatten(values)), values


@pytest.mark.parametrize("activation", DEFINED)
def test_activations_equal_their_definitions(activation):
    x = np.linspace(-6, 6, 101)
    ours = ACTIVATIONS[activation](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(ours, DEFINED[activation](x), rtol=1e-5, atol=2e-6)


def test_every_activation_has_a_definition():
    assert set(DEFINED) == set(ACTIVATIONS)


CONFIGS = {
    "plain": {},
    "bias": {"bias": True},
    "gated": {"gated": True, "activation": "silu"},
    "gated, bias": {"gated": True, "activation": "silu", "bias": True},
    "clamp": {"clamp": 0.7, "bias": True},
    "gpt-oss": {"gated": True, "activation": "quick-gelu", "clamp": 0.7, "linear_offset": 1.0, "bias": True},
}


@pytest.mark.parametrize("options", CONFIGS.values(), ids=list(CONFIGS))
def test_equals_the_formula_to_1e_5(options):
    config = MLPConfig(features=FEATURES, **options)
    mlp, values = filled(config)
    y, cache, *_ = mlp(jnp.asarray(X), Context())
    np.testing.assert_allclose(y, reference.mlp(config, values, X), rtol=1e-5, atol=1e-4)
    assert cache is None


def loss_and_gradient(name: str):
    mlp, _ = filled(MLPConfig(features=FEATURES, **CONFIGS[name]))
    graph, state = nnx.split(mlp)

    def loss(state, x):
        return jnp.sum(jnp.sin(nnx.merge(graph, state)(x, Context())[0]))

    return jax.jit(jax.value_and_grad(loss))(state, jnp.asarray(X))


one_device = functools.cache(loss_and_gradient)


@pytest.mark.parametrize("name", ["bias", "gated", "gpt-oss"])
@pytest.mark.parametrize(
    "sizes", [{"data": 2, "tensor": 4}, {"data": 1, "fsdp": 2, "context": 2, "tensor": 2}]
)
def test_the_mesh_changes_nothing(name, sizes):
    expected, expected_gradient = one_device(name)
    with use_mesh(build_mesh(MeshConfig(**sizes))):
        got, gradient = loss_and_gradient(name)
    np.testing.assert_allclose(got, expected, atol=2e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), gradient, expected_gradient
    )


def test_megatrons_mlp_of_width_12_has_1212_parameters():
    layer = MLPConfig(features=48, bias=True).build(
        12, std=0.02, output_std=0.02, rngs=nnx.Rngs(params=jax.random.key(0))
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters_of(layer))) == 1212


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"features": 0}, r"mlp\.features = 0 must be positive"),
        ({"clamp": -1.0}, r"mlp\.clamp = -1\.0 must be positive, or null"),
        ({"linear_offset": 1.0}, r"mlp\.linear_offset = 1\.0 needs mlp\.gated = true"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        MLPConfig(**{"features": 4} | options)
