"""What the closed forms know of a model is told by its axes and its stacks, whatever its sub-layers are."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from planning import recipe, request

from mjx.batch import token_batch
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import parameter
from mjx.models.common.pattern import Mixed, MixerConfig, SublayerConfig
from mjx.models.gpt import GPTConfig
from mjx.plan.estimate import estimate
from mjx.plan.explain.activations import activations_of
from mjx.plan.scheme import scheme_of

EMBED, EXPERTS, MLP = 1024, 8, 512


@dataclasses.dataclass(frozen=True)
class Experts(MixerConfig):
    """A mixer with a stack of weights, a router, and a convolution that lies between no residual streams."""

    name = "experts"

    def build(self, embed, *, std, output_std, rngs):
        return _Experts(embed)

    def flops_per_token(self, embed, lengths):
        return 2 * (embed * EXPERTS + 2 * 2 * embed * MLP + 4 * embed)


class _Experts(nnx.Module):
    def __init__(self, embed):
        self.router = parameter(jnp.zeros((embed, EXPERTS)), "embed", "experts")
        self.up = parameter(jnp.zeros((EXPERTS, embed, MLP)), "experts", "embed", "mlp")
        self.down = parameter(jnp.zeros((EXPERTS, MLP, embed)), "experts", "mlp", "embed")
        self.taps = parameter(jnp.zeros((4, MLP)), "conv", "mlp")

    def __call__(self, x, context, cache):
        return Mixed(x, cache)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture(GPTConfig):
    """After two dense layers, MLPs are mixtures."""

    def sublayers(self):
        dense = super().sublayers()
        experts = SublayerConfig(mixer=Experts(), norm=NormConfig())
        return tuple(experts if at > 4 and at % 2 else sublayer for at, sublayer in enumerate(dense))


def mixture(tmp_path, *overrides):
    asked = request(recipe(tmp_path), *overrides)
    config = asked.load()
    fields = {f.name: getattr(config.model, f.name) for f in dataclasses.fields(GPTConfig)}
    return asked, dataclasses.replace(config, model=Mixture(**fields)), config


def test_sublayers_are_those_of_the_models_stack(tmp_path):
    _, config, _ = mixture(tmp_path, "mesh.fsdp=4", "mesh.expert=4")
    scheme = scheme_of(config, 16)
    unit = "decoder.segments"
    assert [(s.unit, s.repeats) for s in scheme.sublayers] == [
        *((f"{unit}.0", 2), (f"{unit}.0", 2), (f"{unit}.1", 2), (f"{unit}.1", 2))
    ]
    experts = scheme.sublayers[-1]
    assert {w.name.removeprefix(f"{unit}.1.1.") for w in experts.weights} == {
        *("norm.scale", "norm.bias"),
        *(f"experts.{name}" for name in ("router", "up", "down", "taps")),
    }
    (up,) = [weight for weight in experts.weights if weight.name.endswith(".up")]
    assert up.elements == 2 * EXPERTS * EMBED * MLP
    assert up.resident == up.elements / 4, "on a share of the experts"
    assert experts.wide_outputs == EXPERTS / 4, "of the router"


def test_what_no_closed_form_counts_is_named(tmp_path):
    asked, config, dense = mixture(tmp_path)
    layer = "decoder.segments.1.1.experts"
    expected = {
        f"{layer}.up (layers × experts × embed × mlp)",
        f"{layer}.down (layers × experts × mlp × embed)",
        f"{layer}.taps (layers × conv × mlp)",
    }
    assert set(estimate(config, asked).uncounted) == expected
    assert estimate(dense, asked).uncounted == ()


@pytest.mark.parametrize("remat", ["none", "selective", "full"])
def test_flops_are_the_models_and_what_is_recomputed_of_them(remat, tmp_path):
    asked, config, _ = mixture(tmp_path, f"model.remat={remat}")
    tokens = config.training.batch_size * config.data.sequence_length / asked.devices
    total = config.model.flops_per_token(config.data.sequence_length)
    share = estimate(config, asked).time.at_peak * asked.sheet.tensor_flops / tokens / total
    assert share == pytest.approx(1) if remat == "none" else 1 < share <= 4 / 3


def test_activations_are_shown_under_the_path_of_their_parameters(tmp_path):
    _, config, _ = mixture(tmp_path)
    model = jax.eval_shape(lambda: config.model.build(nnx.Rngs(params=jax.random.key(0))))
    batch = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in token_batch(2, 16).items()
    }
    sections = dict.fromkeys(found.section for found in activations_of(model, batch))
    alike = [section for section in sections if "segments" in section]
    assert alike == [f"decoder.segments.{number} (one of 2 alike)" for number in (0, 1)]
