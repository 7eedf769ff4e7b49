"""Every implementation of attention against the reference, forward and every gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.kernels.flash_attention import reference, xla

FEATURES = {
    "causal": {},
    "full": {"causal": False},
    "window": {"window": 5},
    "window, not causal": {"causal": False, "window": 4},
    "soft-cap": {"soft_cap": 2.0},
    "sinks": {"sinks": True},
    "segments": {"segments": True},
    "everything": {"window": 6, "soft_cap": 3.0, "sinks": True, "segments": True},
    "offset": {"query_offset": 7, "keys": 24},
    "an offset per row": {"query_offset": np.array([0, 3]), "keys": 24},
}
HEADS = [(4, 4, 16, 16), (6, 2, 8, 8), (4, 1, 12, 20)]


def inputs(
    heads, kv_heads, head_dim, value_dim, *, keys=17, segments=False, sinks=False, dtype=np.float32, **options
):
    random = np.random.RandomState(0)
    q = random.randn(2, 17, heads, head_dim).astype(dtype)
    k = random.randn(2, keys, kv_heads, head_dim).astype(dtype)
    v = random.randn(2, keys, kv_heads, value_dim).astype(dtype)
    options["scale"] = head_dim**-0.5
    if segments:  # the first row ends in padding
        options["segment_ids"] = np.array([[1] * 5 + [2] * 9 + [0] * 3, [1] * 11 + [2] * 6])
    sink = random.randn(heads).astype(np.float32) if sinks else None
    return (q, k, v, sink), options


@pytest.mark.parametrize(("feature", "heads"), list(itertools.product(FEATURES, HEADS)))
def test_xla_equals_the_reference_with_every_gradient(feature, heads):
    arrays, options = inputs(*heads, **FEATURES[feature])
    weight = np.random.RandomState(1).randn(2, 17, heads[0], heads[3]).astype(np.float32)

    def run(attention):
        def total(q, k, v, sinks):
            out = attention(q, k, v, sinks=sinks, **options)
            return jnp.sum(out * weight), out

        wanted = tuple(i for i, array in enumerate(arrays) if array is not None)
        return jax.jit(jax.grad(total, argnums=wanted, has_aux=True))(*arrays)

    (gradients, out), (expected_gradients, expected) = run(xla.attention), run(reference.attention)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        assert np.isfinite(theirs).all()
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("implementation", [reference, xla])
def test_rows_that_see_nothing_are_zero_and_padding_does_not_leak(implementation):
    (q, k, v, _), options = inputs(4, 2, 8, 8, segments=True)
    out = implementation.attention(q, k, v, **options)
    np.testing.assert_array_equal(out[0, 14:], 0)
    poisoned = k.copy()
    poisoned[0, 14:] = 1e4
    np.testing.assert_array_equal(implementation.attention(q, poisoned, v, **options)[0, :14], out[0, :14])


@pytest.mark.parametrize("implementation", [reference, xla])
def test_packed_documents_equal_separate_ones(implementation):
    (q, k, v, _), options = inputs(4, 2, 8, 8)
    scale = options["scale"]
    segments = np.array([[1] * 6 + [2] * 11] * 2)
    packed = implementation.attention(q, k, v, scale=scale, segment_ids=segments)
    for part in (slice(0, 6), slice(6, 17)):
        alone = implementation.attention(q[:, part], k[:, part], v[:, part], scale=scale)
        np.testing.assert_allclose(packed[:, part], alone, atol=1e-6)


def test_the_reference_equals_a_plain_softmax_written_row_by_row():
    (q, k, v, sinks), options = inputs(2, 1, 8, 8, sinks=True)
    out = reference.attention(q, k, v, sinks=sinks, window=4, soft_cap=2.0, **options)
    for b, i, h in itertools.product(range(2), range(17), range(2)):
        seen = range(max(0, i - 3), i + 1)
        scores = [2.0 * np.tanh(float(q[b, i, h] @ k[b, j, 0]) * options["scale"] / 2.0) for j in seen]
        weights = np.exp(scores)
        expected = sum(w * v[b, j, 0] for w, j in zip(weights, seen, strict=True))
        expected = expected / (weights.sum() + np.exp(sinks[h]))
        np.testing.assert_allclose(out[b, i, h], expected, atol=1e-5)


def test_bfloat16_stays_within_its_own_rounding():
    arrays, options = inputs(4, 2, 16, 16)
    q, k, v = (jnp.asarray(array, jnp.bfloat16) for array in arrays[:3])
    exact = reference.attention(*(x.astype(jnp.float32) for x in (q, k, v)), **options)
    error = {
        name: float(jnp.abs(module.attention(q, k, v, **options).astype(jnp.float32) - exact).max())
        for name, module in (("reference", reference), ("xla", xla))
    }
    assert error["xla"] <= 2 * error["reference"]
