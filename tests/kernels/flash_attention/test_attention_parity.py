"""The XLA path equals the reference: output, log-sum-exp and every gradient, to 1e-5 in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import assert_equal, inputs, run, small_chunks
from jax.test_util import check_grads
from reference.attention import attend

from mjx.kernels.flash_attention import chunks, flash_attention
from mjx.kernels.flash_attention.relative_bias import RelativeBuckets

SEGMENTS = np.array([[1] * 5 + [2] * 9 + [0] * 5, [0] * 2 + [3] * 11 + [1] * 6])
TABLE = np.random.RandomState(2).randn(8, 4).astype(np.float32)
FEATURES = {
    "causal": {},
    "full": {"causal": False},
    "window": {"window": 5},
    "window, not causal": {"causal": False, "window": 4},
    "soft-cap": {"soft_cap": 2.0},
    "sinks": {"sinks": True},
    "segments": {"segment_ids": SEGMENTS},
    "segments, full, sinks": {"segment_ids": SEGMENTS, "causal": False, "sinks": True},
    "everything": {"window": 6, "soft_cap": 3.0, "sinks": True, "segment_ids": SEGMENTS, "scale": 0.7},
    "offset": {"query_offset": 7, "keys": 30},
    "keys ahead": {"key_offset": 4, "query_offset": -1},
    "an offset per row": {"query_offset": np.array([0, 9]), "keys": 30, "window": 7},
    "offsets of both, full window": {
        "query_offset": np.array([3, 25]),
        "key_offset": np.array([0, 20]),
        "causal": False,
        "window": 3,
    },
    "relative bias, full": {"relative_bias": TABLE, "causal": False},
    "relative bias, everything": {
        "relative_bias": TABLE,
        "window": 12,
        "soft_cap": 3.0,
        "sinks": True,
        "segment_ids": SEGMENTS,
        "scale": 0.7,
    },
    "relative bias, an offset per row": {
        "relative_bias": TABLE,
        "relative_buckets": RelativeBuckets(two_sided=True, max_distance=20),
        "query_offset": np.array([0, 9]),
        "keys": 30,
    },
    "relative bias, one side, full": {
        "relative_bias": TABLE,
        "relative_buckets": RelativeBuckets(two_sided=False, max_distance=20),
        "causal": False,
        "query_offset": 7,
        "keys": 30,
    },
    "other keys": {
        "causal": False,
        "keys": 11,
        "query_segment_ids": SEGMENTS,
        "key_segment_ids": np.array([[2] * 4 + [1] * 7, [1] * 8 + [0] * 3]),
    },
}


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature(feature, monkeypatch):
    options = dict(FEATURES[feature])
    arrays = inputs(keys=options.pop("keys", None), sinks=options.pop("sinks", False))
    expected = run("reference", *arrays, **options)
    assert_equal(run("xla", *arrays, **options), expected)
    small_chunks(monkeypatch)
    assert_equal(run("xla", *arrays, **options), expected)


HALVED = ["causal", "window", "soft-cap", "sinks", "segments", "everything", "relative bias, everything"]


@pytest.mark.parametrize("feature", HALVED)
def test_in_halves(feature, monkeypatch):
    options = dict(FEATURES[feature])
    arrays = inputs(sinks=options.pop("sinks", False))
    expected = run("reference", *arrays, **options)
    monkeypatch.setattr(chunks, "HALVED", 8)
    assert chunks.worth_halving(arrays[0].shape[1])
    assert_equal(run("xla", *arrays, **options), expected)


def test_halves_are_three_quarters_of_the_products(monkeypatch):
    def flops():
        shape = jax.ShapeDtypeStruct((1, 64, 2, 32), jnp.float32)
        return jax.jit(flash_attention).lower(shape, shape, shape).compile().cost_analysis()["flops"]

    whole = flops()
    monkeypatch.setattr(chunks, "HALVED", 8)
    jax.clear_caches()
    assert 0.7 < flops() / whole < 0.8


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "value_dim"),
    [(4, 4, 64, 64), (6, 2, 80, 80), (4, 1, 96, 96), (2, 2, 128, 128), (2, 1, 256, 256), (2, 2, 192, 128)],
)
def test_heads_and_their_sizes(heads, kv_heads, head_dim, value_dim, monkeypatch):
    arrays = inputs(heads, kv_heads, head_dim, value_dim)
    expected = run("reference", *arrays)
    small_chunks(monkeypatch)
    assert_equal(run("xla", *arrays), expected)


@pytest.mark.parametrize(("queries", "keys"), [(1, 33), (16, 33), (33, 16), (32, 32), (9, 1)])
def test_ragged_lengths(queries, keys, monkeypatch):
    arrays = inputs(queries=queries, keys=keys)
    expected = run("reference", *arrays, causal=keys <= queries)
    small_chunks(monkeypatch)
    assert_equal(run("xla", *arrays, causal=keys <= queries), expected)


def test_at_its_real_chunk_size():
    arrays = inputs(2, 1, queries=2 * chunks.ON_CPU.chunk + 40)
    options = {"window": chunks.ON_CPU.chunk + 3, "soft_cap": 5.0}
    assert_equal(run("xla", *arrays, **options), run("reference", *arrays, **options), atol=2e-5)


@pytest.mark.parametrize("feature", FEATURES)
def test_the_reference_equals_attention_written_query_by_query(feature):
    options = dict(FEATURES[feature])
    *arrays, sinks = inputs(keys=options.pop("keys", None), sinks=options.pop("sinks", False))
    ours = run("reference", *arrays, sinks, **options)
    assert_equal(ours, attend(*arrays, sinks=sinks, **options))


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize("feature", ["everything", "offset"])
def test_gradients_equal_finite_differences_in_float64(implementation, feature, monkeypatch):
    small_chunks(monkeypatch, 4)
    with jax.enable_x64(True):
        options = dict(FEATURES[feature])
        keys, sinks = options.pop("keys", None), options.pop("sinks", False)
        if keys:
            options, keys = {"query_offset": 3}, 13
        else:
            options["segment_ids"] = np.array([[1] * 3 + [2] * 6, [3] * 7 + [0] * 2])
        arrays = [x for x in inputs(2, 1, 4, 3, queries=9, keys=keys, sinks=sinks, dtype=np.float64)]

        def both(q, k, v, sinks):
            out, log_sum_exp = flash_attention(
                q, k, v, sinks=sinks, return_log_sum_exp=True, implementation=implementation, **options
            )
            assert out.dtype == log_sum_exp.dtype == jnp.float64
            return out, log_sum_exp

        if arrays[3] is None:
            check_grads(jax.jit(lambda *x: both(*x, None)), arrays[:3], order=1, modes=["rev"])
        else:
            check_grads(jax.jit(both), arrays, order=1, modes=["rev"])


def test_bfloat16_is_as_exact_as_a_naive_bfloat16_softmax(monkeypatch):
    """Error of output and gradients against float32, at most twice that of the formula in plain bfloat16
    products with a float32 softmax."""
    arrays = inputs(4, 4, 32, 32, queries=40)[:3]
    small = [jnp.asarray(x, jnp.bfloat16) for x in arrays]
    exact = run("reference", *(x.astype(jnp.float32) for x in small), None)

    def naive(q, k, v):
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) * 32**-0.5
        scores = jnp.where(jnp.tri(40, dtype=bool), scores, -jnp.inf)
        out = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores).astype(jnp.bfloat16), v)
        log_sum_exp = jnp.moveaxis(jax.nn.logsumexp(scores, axis=-1), 1, 2)
        weight = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        total = jnp.sum(out.astype(jnp.float32) * weight) + jnp.sum(weight[..., 0] * log_sum_exp)
        return total, (out, log_sum_exp)

    gradients, outputs = jax.jit(jax.grad(naive, argnums=(0, 1, 2), has_aux=True))(*small)

    def errors(results):
        return [
            float(jnp.sqrt(jnp.mean((a.astype(jnp.float32) - b) ** 2)))
            for a, b in zip(results, exact, strict=True)
        ]

    bound = errors((*outputs, *gradients))
    whole = errors(run("xla", *small, None))
    small_chunks(monkeypatch)
    for ours in (whole, errors(run("xla", *small, None))):
        assert all(a <= 2 * b for a, b in zip(ours, bound, strict=True)), (ours, bound)


def test_with_one_chunk_dropout_keeps_what_the_reference_keeps():
    arrays = inputs(queries=16)[:3]
    options = {"dropout_rate": 0.4, "dropout_key": jax.random.key(0)}
    ours, theirs = (
        flash_attention(*arrays, implementation=implementation, **options)
        for implementation in ("xla", "reference")
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(ours - flash_attention(*arrays)).max() > 0.1


def test_dropout_keeps_the_expectation(monkeypatch):
    small_chunks(monkeypatch, 9)
    q, k, v, _ = inputs(2, 2, 8, 4, queries=16)

    def dropped(key):
        options = {"causal": False, "implementation": "xla", "dropout_rate": 0.4}
        return flash_attention(q, k, v, dropout_key=key, **options)

    draws = np.asarray(
        jax.jit(lambda key: jax.lax.map(dropped, jax.random.split(key, 400)))(jax.random.key(0))
    )
    plain = flash_attention(q, k, v, causal=False)
    assert np.abs(draws.mean(0) - plain).mean() < 0.04 < np.abs(draws[0] - plain).mean()


def test_dropout_has_the_gradients_of_queries_and_keys(monkeypatch):
    small_chunks(monkeypatch, 4)
    with jax.enable_x64(True):
        arrays = inputs(2, 1, 4, 3, queries=9, dtype=np.float64)[:3]
        options = {"dropout_rate": 0.3, "dropout_key": jax.random.key(1), "implementation": "xla"}
        check_grads(jax.jit(lambda *x: flash_attention(*x, **options)), arrays, order=1, modes=["rev"])
