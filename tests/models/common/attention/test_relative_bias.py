"""The sub-layer with a bias by distance equals the reference's, and the stack has one table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference.attention import attention

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.attention.relative_bias import RelativeBiasConfig
from mjx.models.common.context import Context
from mjx.models.common.parameter import logical_axes_of, parameters_of
from mjx.models.common.pattern import SublayerConfig
from mjx.models.common.stack import Stack
from mjx.trees import flatten

EMBED, HEADS = 16, 4
X = np.random.RandomState(0).randn(2, 12, EMBED).astype(np.float32)
CONFIG = AttentionConfig(
    num_heads=HEADS,
    num_query_groups=2,
    scale=0.2,
    relative_bias=RelativeBiasConfig(buckets=8, max_distance=6),
).resolve(EMBED)


def stack_of(*configs: AttentionConfig, std=0.3) -> Stack:
    sublayers = tuple(SublayerConfig(mixer=config, norm=None) for config in configs)
    return Stack(sublayers, EMBED, std=std, output_std=std, rngs=nnx.Rngs(params=jax.random.key(0)))


@pytest.mark.parametrize("causal", [True, False])
def test_layers_that_read_one_table_equal_numpy(causal):
    config = dataclasses.replace(CONFIG, causal=causal)
    stack = stack_of(config, config)
    values = jax.device_get(flatten(parameters_of(stack)))
    table = values.pop("shared.relative_bias.weight")
    expected, without = X, X
    for layer in range(2):
        own = {name.removeprefix("segments.0.0.attention."): leaf[layer] for name, leaf in values.items()}
        without = without + attention(config, own, without)
        expected = expected + attention(config, own, expected, relative_bias=table)
    got = jax.jit(lambda x: stack(x, Context()).x)(jnp.asarray(X))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - without).max() > 0.1


def test_the_table_is_drawn_with_the_models_deviation_and_lies_with_the_heads():
    stack = stack_of(
        dataclasses.replace(CONFIG, relative_bias=RelativeBiasConfig(buckets=2000, max_distance=4000))
    )
    (weight,) = (leaf for path, leaf in flatten(parameters_of(stack)).items() if path.startswith("shared"))
    assert weight.shape == (2000, HEADS)
    assert float(jnp.std(weight)) == pytest.approx(0.3, rel=0.05)
    assert flatten(logical_axes_of(stack))["shared.relative_bias.weight"] == ("buckets", "heads")


def test_layers_of_one_stack_cannot_have_different_tables():
    other = dataclasses.replace(CONFIG, causal=False)
    with pytest.raises(InputError, match=r"share parameters named 'relative_bias' but configure them diff"):
        stack_of(CONFIG, other)


@pytest.mark.parametrize(
    ("causal", "options", "sentence"),
    [
        (False, {"buckets": 7}, r"attention\.relative_bias has 7 buckets for two sides: it takes an even"),
        (True, {"buckets": 1}, r"attention\.relative_bias has 1 buckets: it takes at least 2"),
        (True, {"max_distance": 16}, r"attention\.relative_bias has max_distance = 16 for 32 buckets"),
        (True, {"max_distance": 2**31}, r"must be above 16, and at most 1073741824"),
    ],
)
def test_a_table_that_cannot_be_is_refused(causal, options, sentence):
    with pytest.raises(InputError, match=sentence):
        AttentionConfig(num_heads=4, causal=causal, relative_bias=RelativeBiasConfig(**options))
