"""The sub-layer equals the reference's attention with its own weights."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference.attention import attention

from mjx.errors import InputError
from mjx.models.common.attention import Attention, AttentionConfig
from mjx.models.common.context import Context, Decoding
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import bind, logical_axes_of, parameters_of
from mjx.models.common.pattern import CacheSizes, Lengths
from mjx.models.common.rope import RoPEConfig, RoPEScaling
from mjx.sharding import MeshConfig, build_mesh, use_mesh
from mjx.trees import flatten, unflatten

EMBED, HEADS, HEAD_DIM, BATCH, SEQUENCE = 16, 4, 6, 2, 8
X = np.random.RandomState(0).randn(BATCH, SEQUENCE, EMBED).astype(np.float32)
SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1, 1]], np.int32)


def filled(config: AttentionConfig) -> tuple[Attention, dict[str, np.ndarray]]:
    """The layer with random parameters, biases, gains and sinks too, and the parameters."""
    layer = config.build(EMBED, std=0.02, output_std=0.02, rngs=nnx.Rngs(params=jax.random.key(0)))
    random = np.random.RandomState(1)
    values = {
        path: (0.4 * random.randn(*leaf.shape)).astype(np.float32)
        for path, leaf in flatten(parameters_of(layer)).items()
    }
    return bind(layer, unflatten(values)), values


def context_of(config: AttentionConfig, segments: np.ndarray | None = None) -> Context:
    segment_ids = None if segments is None else jnp.asarray(segments)
    return at(config, jnp.arange(SEQUENCE)[None], segment_ids=segment_ids)


def at(config: AttentionConfig, positions: Any, **options) -> Context:
    return Context(positions=positions, **options).with_tables(dict.fromkeys(config.shared))


RMS = NormConfig(kind="rmsnorm")
CONFIGS = {
    "multi-head": {},
    "grouped": {"num_query_groups": 2},
    "multi-query": {"num_query_groups": 1},
    "biases": {"num_query_groups": 2, "qkv_bias": True, "output_bias": True},
    "rotary": {"num_query_groups": 2, "rope": RoPEConfig()},
    "rotary in pairs, a part": {"rope": RoPEConfig(layout="interleaved", percent=0.7)},
    "rotary, normed": {"num_query_groups": 1, "rope": RoPEConfig(base=100.0), "qk_norm": RMS},
    "normed over all heads": {"qk_norm": RMS, "qk_norm_over": "all_heads", "rope": RoPEConfig()},
    "normed over all heads, grouped": {"num_query_groups": 2, "qk_norm": RMS, "qk_norm_over": "all_heads"},
    "gate": {"num_query_groups": 2, "output_gate": True, "qkv_bias": True},
    "gate, multi-query": {"num_query_groups": 1, "output_gate": True},
    "off-by-one": {"softmax": "off-by-one"},
    "learnable sinks": {"num_query_groups": 2, "softmax": "learnable", "window": 3},
    "window": {"window": 3, "rope": RoPEConfig()},
    "window of one": {"window": 1},
    "soft-cap": {"soft_cap": 0.5, "scale": 0.9},
    "bidirectional": {"causal": False, "num_query_groups": 2},
    "bidirectional window": {"causal": False, "window": 3},
}


def config_of(name: str, **options) -> AttentionConfig:
    return AttentionConfig(**{"num_heads": HEADS, "head_dim": HEAD_DIM} | CONFIGS[name] | options).resolve(
        EMBED
    )


@pytest.mark.parametrize("implementation", ["xla", "reference"])
@pytest.mark.parametrize("name", CONFIGS)
def test_equals_numpy_to_1e_5(name, implementation):
    config = config_of(name, implementation=implementation)
    layer, values = filled(config)
    y, cache, *_ = layer(jnp.asarray(X), context_of(config))
    np.testing.assert_allclose(y, attention(config, values, X), rtol=1e-5, atol=1e-5)
    assert cache is None


@pytest.mark.parametrize("name", ["grouped", "window", "learnable sinks", "bidirectional"])
def test_documents_of_a_packed_row_do_not_see_each_other(name):
    config = config_of(name)
    layer, values = filled(config)
    y = layer(jnp.asarray(X), context_of(config, SEGMENTS)).y
    expected = attention(config, values, X, segment_ids=SEGMENTS)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - attention(config, values, X)).max() > 0.01


def loss_and_gradient(name: str):
    config = config_of(name)
    layer, _ = filled(config)
    graph, state = nnx.split(layer)

    def loss(state, x):
        return jnp.mean(jnp.sin(nnx.merge(graph, state)(x, context_of(config, SEGMENTS))[0]))

    return jax.jit(jax.value_and_grad(loss))(state, jnp.asarray(X))


one_device = functools.cache(loss_and_gradient)


@pytest.mark.parametrize(
    "sizes", [{"data": 2, "tensor": 4}, {"data": 1, "fsdp": 2, "context": 2, "tensor": 2}]
)
@pytest.mark.parametrize(
    "name",
    [
        "multi-head",
        "multi-query",
        "gate",
        "learnable sinks",
        "rotary, normed",
        "normed over all heads",
        "normed over all heads, grouped",
    ],
)
def test_the_mesh_changes_nothing(name, sizes):
    expected, expected_gradient = one_device(name)
    with use_mesh(build_mesh(MeshConfig(**sizes))):
        got, gradient = loss_and_gradient(name)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), gradient, expected_gradient
    )


def count(config: AttentionConfig, embed: int) -> int:
    build = functools.partial(config.resolve(embed).build, embed, std=0.02, output_std=0.02)
    layer = jax.eval_shape(lambda: build(rngs=nnx.Rngs(params=jax.random.key(0))))
    return sum(leaf.size for leaf in jax.tree.leaves(parameters_of(layer)))


def test_megatrons_attention_of_width_128_has_66048_parameters_and_with_a_gate_82560():
    # Megatron's tests count the fused input norm (256) with them: 66,304 and 82,816.
    config = AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True)
    gated = AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True, output_gate=True)
    assert count(config, 128) == 66_304 - 256
    assert count(gated, 128) == 82_816 - 256


def test_a_causal_window_is_counted_exactly():
    for sequence, window in [(64, None), (64, 16), (64, 64), (64, 100), (7, 3)]:
        config = AttentionConfig(num_heads=HEADS, head_dim=HEAD_DIM, window=window).resolve(EMBED)
        pairs = sum(min(i + 1, window or sequence) for i in range(sequence))
        core = config.flops_per_token(EMBED, Lengths(sequence)) - 2 * EMBED * HEAD_DIM * 4 * HEADS
        # The formula is the integral; the sum has half a token more per query.
        assert core * sequence == pytest.approx(
            4 * HEADS * HEAD_DIM * pairs, rel=0.5 / min(sequence, window or 64) + 0.03
        )


def test_the_gains_over_all_heads_have_their_axes():
    layer, values = filled(config_of("normed over all heads, grouped"))
    assert values["query_norm.scale"].shape == (HEADS, HEAD_DIM)
    assert values["key_norm.scale"].shape == (2, HEAD_DIM)
    axes = flatten(logical_axes_of(layer))
    assert axes["query_norm.scale"] == ("heads", "head_dim")
    assert axes["key_norm.scale"] == ("kv_heads", "head_dim")


LONGROPE = RoPEScaling(
    kind="longrope", factor=4, original_positions=5, short_factors=(1.0, 2.0), long_factors=(3.0, 9.0)
)


def test_cached_keys_are_rotated_as_the_row_that_they_are_in_has_become():
    """With one layer, a cache is exact even where the row grows out of its original positions."""
    config = config_of("grouped", head_dim=4, rope=RoPEConfig(scaling=LONGROPE))
    layer, values = filled(config)
    cache = config.init_cache(CacheSizes(BATCH, 16), jnp.float32)

    @functools.partial(jax.jit, static_argnames="prompt")
    def follow(x, start, cache, *, prompt):
        length = x.shape[1]
        decoding = Decoding(jnp.full((BATCH,), start), jnp.full((BATCH,), length), prompt=prompt)
        positions = (start + jnp.arange(length))[None]
        return layer(x, at(config, positions, decoding=decoding), cache)[:2]

    for start, end in ((0, 3), *((at, at + 1) for at in range(3, SEQUENCE))):
        got, cache = follow(X[:, start:end], start, cache, prompt=start == 0)
        expected = attention(config, values, X[:, :end])
        np.testing.assert_allclose(got, expected[:, start:end], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_heads": 0}, r"attention\.num_heads = 0 must be positive"),
        (
            {"num_heads": 8, "num_query_groups": 3},
            r"attention\.num_query_groups = 3 does not divide num_heads = 8 \(choose 1, 2, 4 or 8\)",
        ),
        ({"head_dim": 0}, r"attention\.head_dim = 0 must be positive, or null for the default"),
        ({"window": -1}, r"attention\.window = -1 must be positive"),
        ({"soft_cap": 0.0}, r"attention\.soft_cap = 0\.0 must be positive"),
        ({"scale": -2.0}, r"attention\.scale = -2\.0 must be positive"),
        (
            {"soft_cap": 1e-40},
            r"attention\.soft_cap = 1e-40 must be from 1e-30 to 1e\+30, or null for the default",
        ),
        ({"dropout": 1.0}, r"attention\.dropout = 1\.0 must be at least 0 and below 1"),
        ({"qk_norm_over": "all_heads"}, r"attention\.qk_norm_over = all_heads needs attention\.qk_norm"),
        (
            {"head_dim": 8, "rope": RoPEConfig(scaling=LONGROPE)},
            r"rope\.scaling\.short_factors has 2 divisors, but .* head_dim = 8 makes 4 pairs",
        ),
        ({"head_dim": 7, "rope": RoPEConfig()}, r"rope\.percent = 1\.0 of head_dim = 7 rotates 7 features"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(options, sentence):
    with pytest.raises(InputError, match=sentence):
        AttentionConfig(**{"num_heads": 4} | options)


def test_heads_that_do_not_divide_the_width_need_a_head_dim():
    with pytest.raises(InputError, match=r"num_heads = 3 does not divide hidden_size = 16; choose a divisor"):
        AttentionConfig(num_heads=3).resolve(16)
    with pytest.raises(InputError, match=r"head_dim is not known yet: call resolve"):
        _ = AttentionConfig(num_heads=3).dims
