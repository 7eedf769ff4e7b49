"""A mixture made of a dense model computes what that did."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.context import Context
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig, RouterConfig
from mjx.models.common.moe.upcycle import experts_of
from mjx.models.common.parameter import bind, parameters_of
from mjx.models.family import abstract_model
from mjx.models.gpt import GPTConfig
from mjx.trees import flatten

EMBED = 16
GATED = MLPConfig(features=24, activation="silu", gated=True)
PLAIN = MLPConfig(features=24, activation="gelu-tanh", bias=True)
GPT_OSS = MLPConfig(features=24, activation="quick-gelu", gated=True, bias=True, clamp=0.5, linear_offset=1.0)
TOKENS = jnp.asarray(np.random.RandomState(0).randint(0, 61, (2, 17)))


def dense(mlp: MLPConfig, **fields) -> GPTConfig:
    return GPTConfig(
        num_layers=3,
        hidden_size=EMBED,
        vocab_size=61,
        vocab_divisor=16,
        dtype="float32",
        init_std=0.2,
        attention=AttentionConfig(num_heads=2),
        mlp=mlp,
        **fields,
    )


def drawn(shapes):
    """Parameters of these shapes."""
    draw = np.random.RandomState(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.2 * draw.randn(*leaf.shape), jnp.float32), shapes)


def experts_like(dense: MLPConfig, features: int, router: RouterConfig | None = None, **choices) -> MoEConfig:
    """Of 8 experts of so many features every token takes 4."""
    expert = dataclasses.replace(dense, features=features)
    return MoEConfig(
        **{"experts": 8, "top_k": 4, "mlp": expert, "router": router or RouterConfig(), **choices}
    )


def with_experts(config: GPTConfig, features: int, *choices, **moe) -> GPTConfig:
    return dataclasses.replace(config, moe=experts_like(GATED, features, *choices, **moe))


CASES = {
    "whole MLPs": (GATED, 24, RouterConfig(), {}),
    "halves": (GATED, 12, RouterConfig(scaling=3.0), {}),
    "quarters, one of each": (PLAIN, 6, RouterConfig(bias=True), {}),
    "one of many, not normalised": (PLAIN, 24, RouterConfig(normalized=False), {"top_k": 1}),
    "halves by softmax of all": (GATED, 12, RouterConfig(normalized=False, jitter=0.1), {}),
    "halves by sigmoid, in groups": (
        GPT_OSS,
        12,
        RouterConfig(scores="sigmoid", groups=4, top_groups=2, expert_bias_rate=1e-3, scaling=2.5),
        {},
    ),
    "halves by sigmoid, not normalised": (GPT_OSS, 12, RouterConfig(scores="sigmoid", normalized=False), {}),
    "softplus": (
        GATED,
        8,
        RouterConfig(scores="sqrt-softplus", normalized=False),
        {"experts": 9, "top_k": 3},
    ),
    "what is read is weighed": (
        GPT_OSS,
        24,
        RouterConfig(scores="sigmoid", normalized=False),
        {"top_k": 1, "probabilities_on": "input"},
    ),
    "Sinkhorn": (GATED, 24, RouterConfig(sinkhorn=True, normalized=False), {"top_k": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_experts_write_what_the_mlp_did(name):
    mlp, features, router, moe = CASES[name]
    config = experts_like(mlp, features, router, **moe)
    one, other = (
        nnx.eval_shape(lambda kind=kind: kind.build(EMBED, std=0.2, output_std=0.2, rngs=nnx.Rngs(0)))
        for kind in (mlp, config)
    )
    given = drawn(parameters_of(one))
    made = experts_of(mlp, config, given, jax.random.key(2), std=0.2)
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, parameters_of(other))
    x = jnp.asarray(np.random.RandomState(0).randn(2, 17, EMBED), jnp.float32)

    @jax.jit
    def both(given, made):
        return bind(one, given)(x, Context()).y, bind(other, made)(x, Context(training=True)).y

    ours, theirs = both(given, made)
    assert jnp.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_logits_are_those_of_the_dense_model_and_some_layers_keep_their_mlps():
    given = dense(GATED, parallel_residual=True, norm_placement="both")
    config = dataclasses.replace(with_experts(given, 12), moe_pattern=(True, True, False), dense_layers=1)
    one, other = abstract_model(given), abstract_model(config)
    parameters = drawn(parameters_of(one))
    make = config.upcycling(given)
    assert make is not None

    @jax.jit
    def both(parameters):
        made = make(parameters, jax.random.key(2))
        return bind(one, parameters)(TOKENS), bind(other, made)(TOKENS), made

    theirs, ours, made = both(parameters)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for layer in (0, 2):
        (path, index), (place, at) = config.places[2 * layer + 1], given.places[2 * layer + 1]
        kernel = flatten(made)[f"{path}.mlp.up.kernel"][index]
        np.testing.assert_array_equal(kernel, flatten(parameters)[f"{place}.mlp.up.kernel"][at])


@pytest.mark.parametrize("router", [RouterConfig(), RouterConfig(scores="sigmoid", normalized=False)])
def test_a_token_takes_every_slice_and_tokens_take_all_groups(router):
    config = experts_like(GATED, 12, router, experts=16)
    mlp = drawn({"gate": {"kernel": jnp.zeros((EMBED, 24))}, "up": {"kernel": jnp.zeros((EMBED, 24))}})
    mlp["down"] = {"kernel": mlp["up"]["kernel"].T}
    made = experts_of(GATED, config, mlp, jax.random.key(2), std=0.2)
    x = np.random.RandomState(1).randn(1000, EMBED).astype(np.float32)
    ids = np.asarray(jax.lax.top_k(jax.nn.sigmoid(x @ made["router"]["kernel"]), 4)[1])
    assert (np.sort(ids % 2, axis=1) == [0, 0, 1, 1]).all()
    load = np.bincount(ids.reshape(-1), minlength=16) / ids.size * 16
    assert load.max() < 2
    assert load.min() > 0.3


REFUSED = {
    "no multiple of the 2 slices": dict(features=12, top_k=3),
    r"moe\.experts = 9 is no multiple": dict(features=12, experts=9),
    "does not divide the 24": dict(features=16),
    "features = 48 does not divide": dict(features=48),
    "the dense model has no weights for it": dict(features=24, shared_features=8),
    "moe.latent = 8": dict(features=24, latent=8),
    "puts 3 experts in a group": dict(
        features=12, experts=12, router=RouterConfig(groups=4, top_groups=2), top_k=4
    ),
    "sinkhorn = true": dict(features=12, router=RouterConfig(sinkhorn=True, normalized=False)),
    "activation = relu differs": dict(features=12, mlp=MLPConfig(features=12, activation="relu", gated=True)),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_experts_that_could_not_compute_the_same_are_refused(sentence):
    given = dense(GATED)
    with pytest.raises(InputError, match=sentence):
        with_experts(given, **REFUSED[sentence]).upcycling(given)


def test_other_models_and_equal_ones_are_not_made_of_a_dense_one():
    given = dense(GATED)
    config = with_experts(given, 12)
    assert given.upcycling(given) is None
    assert config.upcycling(config) is None
    assert dataclasses.replace(config, num_layers=2).upcycling(given) is None
    assert dataclasses.replace(config, parallel_residual=True).upcycling(given) is None
    assert given.upcycling(config) is None
