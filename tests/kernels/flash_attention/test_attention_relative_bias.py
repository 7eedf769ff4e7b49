"""A learned bias by distance: buckets as T5 has them, dropout, and no array of all pairs of tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import inputs, small_chunks
from jax.test_util import check_grads
from reference.relative_buckets import bucket

from mjx.errors import InputError
from mjx.kernels.flash_attention import flash_attention
from mjx.kernels.flash_attention.relative_bias import RelativeBuckets

DISTANCES = (0, 1, 7, 8, 11, 12, 15, 16, 22, 23, 31, 32, 45, 46, 63, 64, 90, 91, 127, 128, 129, 1000)
BEFORE = {
    True: (0, 1, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15, 15, 15, 15),
    False: (0, 1, 7, 8, 11, 12, 15, 16, 18, 18, 21, 21, 23, 24, 26, 26, 29, 29, 31, 31, 31, 31),
}
"""Two-sided or not → the buckets of keys so far before the query, as T5's own function gives them for 32
buckets up to 128. Of keys behind: 16 more (but at distance 0), or 0."""


@pytest.mark.parametrize("two_sided", [True, False])
def test_buckets_are_those_of_t5(two_sided):
    buckets = RelativeBuckets(two_sided=two_sided)
    before = [int(number) for number in buckets.of(-np.array(DISTANCES), 32)]
    assert tuple(before) == BEFORE[two_sided]
    behind = [16 + number if number else 0 for number in before] if two_sided else [0] * len(before)
    assert [int(number) for number in buckets.of(np.array(DISTANCES), 32)] == behind


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize(("count", "max_distance"), [(32, 128), (8, 20), (10, 64), (128, 1000), (4, 4096)])
def test_buckets_equal_the_formula_at_every_distance(count, max_distance, two_sided):
    relative = np.arange(-max_distance - 300, max_distance + 301)
    expected = [bucket(int(place), count, max_distance, two_sided=two_sided) for place in relative]
    ours = RelativeBuckets(two_sided=two_sided, max_distance=max_distance).of(relative, count)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    ("table", "options", "sentence"),
    [
        ((32, 3), {}, r"of shape \[buckets, heads\] = \[buckets, 4\], not float32\[32, 3\]"),
        ((32,), {}, r"\[buckets, heads\] = \[buckets, 4\], not float32\[32\]"),
        ((7, 4), {"causal": False}, r"\[7, 4\] has 7 buckets for two sides: it takes an even number"),
        ((1, 4), {}, r"has 1 buckets: it takes at least 2"),
        ((32, 4), {"relative_buckets": RelativeBuckets(False, 16)}, r"max_distance = 16 .* must be above 16"),
        (
            (32, 4),
            {"implementation": "mosaic"},
            r"'mosaic' cannot do .*, relative bias; xla and reference can",
        ),
    ],
)
def test_a_bias_that_cannot_be_is_refused(table, options, sentence):
    with pytest.raises(InputError, match=sentence):
        flash_attention(*inputs()[:3], relative_bias=np.zeros(table, np.float32), **options)


def test_with_dropout_the_gradients_are_those_of_finite_differences(monkeypatch):
    small_chunks(monkeypatch, 4)
    with jax.enable_x64(True):
        arrays = inputs(2, 1, 4, 3, queries=9, dtype=np.float64)[:3]
        table = np.random.RandomState(1).randn(8, 2)

        def call(q, k, v, table):
            options = {"dropout_rate": 0.3, "dropout_key": jax.random.key(1), "soft_cap": 2.0}
            options |= {"relative_bias": table, "relative_buckets": RelativeBuckets(True, 6)}
            return flash_attention(q, k, v, causal=False, implementation="xla", **options)

        check_grads(jax.jit(call), (*arrays, table), order=1, modes=["rev"])


@pytest.mark.optimized
def test_there_is_no_array_of_all_pairs_of_tokens():
    """Of 8192 tokens and 4 heads it would be 1 GiB: forward, backward, or once for all layers."""

    def temporaries(biased):
        def loss(x, table):
            def layer(x, _):
                bias = {"relative_bias": table} if biased else {}
                return x + flash_attention(x, x, x, causal=False, implementation="xla", **bias), None

            return jnp.sum(jax.lax.scan(layer, x, length=3)[0] ** 2)

        shapes = (
            jax.ShapeDtypeStruct((1, 8192, 4, 32), jnp.float32),
            jax.ShapeDtypeStruct((32, 4), jnp.float32),
        )
        compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*shapes).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    added = temporaries(biased=True) - temporaries(biased=False)
    assert added < 4 * 2**20
