import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference.decoder import stack as reference

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.context import Context
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import bind, logical_axes_of, parameters_of
from mjx.models.common.pattern import Mixed, MixerConfig, ResidualConfig, SublayerConfig
from mjx.models.common.stack import Stack
from mjx.sharding import MeshConfig, build_mesh, use_mesh
from mjx.trees import flatten, unflatten

NORM = NormConfig()


RMS = NormConfig(kind="rmsnorm")


@dataclasses.dataclass(frozen=True)
class EnteredConfig(MixerConfig):
    """Adds the stack's own input again."""

    name = "entered"

    def build(self, embed, *, std, output_std, rngs):
        return Entered()


class Entered(nnx.Module):
    def __call__(self, x, context, cache=None):
        return Mixed(context.entered)


PLACEMENTS = {
    "before": {"norm": RMS},
    "behind": {"norm": None, "output_norm": RMS},
    "both": {"norm": RMS, "output_norm": RMS},
    "none": {"norm": None},
    "before, parallel": {"norm": RMS, "parallel": True},
    "behind, parallel": {"norm": None, "output_norm": RMS, "parallel": True},
    "one before both": {"norm": RMS, "parallel": True, "shares_norm": True, "input_scale": 0.7},
    "aside": {"norm": RMS, "aside": True, "residual": ResidualConfig(scale=0.6)},
}


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("name", PLACEMENTS)
def test_norms_and_residuals_are_where_the_config_says(name, remat):
    """Three times a sub-layer and one that may be parallel."""
    options = PLACEMENTS[name]
    alone = {**options, "parallel": False, "shares_norm": False}
    first = SublayerConfig(**alone, mixer=MLPConfig(features=12, activation="relu"))
    behind = {**options, "norm": None} if "shares_norm" in options else {**options, "aside": False}
    second = SublayerConfig(**behind, mixer=MLPConfig(features=20, activation="relu"))
    pattern = (first, second) * 3
    stack = Stack(pattern, 8, remat=remat, std=0.02, output_std=0.02, rngs=nnx.Rngs(params=jax.random.key(0)))
    random = np.random.RandomState(0)
    values = {
        path: random.randn(*leaf.shape).astype(np.float32) / 2
        for path, leaf in flatten(parameters_of(stack)).items()
    }
    x = random.randn(2, 4, 8).astype(np.float32)
    y = bind(stack, unflatten(values))(jnp.asarray(x), Context()).x

    expected = reference(pattern, values, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_a_norm_is_shared_by_those_who_read_the_same():
    with pytest.raises(InputError, match="shares_norm = true must be parallel, without a norm"):
        SublayerConfig(mixer=MLPConfig(features=8), norm=RMS, parallel=True, shares_norm=True)


def test_what_is_aside_adds_nothing_to_the_stream():
    with pytest.raises(
        InputError, match=r"aside = true adds nothing to the stream that residual\.norm is of"
    ):
        SublayerConfig(mixer=MLPConfig(features=8), norm=RMS, aside=True, residual=ResidualConfig(norm=RMS))


def test_every_sub_layer_may_read_what_entered_the_stack():
    x = jnp.asarray(np.random.RandomState(0).randn(2, 3, 4), jnp.float32)
    pattern = (SublayerConfig(mixer=EnteredConfig(), norm=None),) * 3
    stack = Stack(pattern, 4, std=0.02, output_std=0.02, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(stack(x, Context()).x, x + 3 * x, rtol=1e-6)


def test_parameters_are_stacked_with_the_layers_first():
    pattern = (
        SublayerConfig(mixer=AttentionConfig(num_heads=2).resolve(8), norm=NORM),
        SublayerConfig(mixer=MLPConfig(features=16), norm=NORM),
    ) * 5
    stack = Stack(pattern, 8, std=0.02, output_std=0.01, rngs=nnx.Rngs(params=jax.random.key(0)))
    shapes = {name: leaf.shape for name, leaf in flatten(parameters_of(stack)).items()}
    assert shapes["segments.0.0.attention.query.kernel"] == (5, 8, 2, 4)
    assert flatten(logical_axes_of(stack))["segments.0.1.mlp.up.kernel"] == ("layers", "embed", "mlp")
    query = flatten(parameters_of(stack))["segments.0.0.attention.query.kernel"]
    assert len({float(layer[0, 0, 0]) for layer in query}) == 5, "each layer draws its own numbers"


@pytest.mark.parametrize(
    ("repeats", "remat", "loops"),
    [(8, "none", False), (9, "none", True), (8, "full", True)],
)
def test_one_cpu_runs_few_layers_without_a_loop(repeats, remat, loops):
    assert ("stablehlo.while" in _program(repeats, remat)) is loops


def test_on_a_mesh_few_layers_are_a_loop_too():
    with use_mesh(build_mesh(MeshConfig(data=8))):
        assert "stablehlo.while" in _program(2, "none")


def _program(repeats: int, remat: str) -> str:
    unit = (SublayerConfig(mixer=MLPConfig(features=8), norm=None),)
    stack = jax.eval_shape(
        lambda: Stack(unit * repeats, 4, remat=remat, std=0.02, output_std=0.02, rngs=nnx.Rngs(0))
    )
    x = jax.ShapeDtypeStruct((8, 3, 4), jnp.float32)
    return jax.jit(lambda stack, x: stack(x, Context()).x).lower(stack, x).as_text()
