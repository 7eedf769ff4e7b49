"""What is masked out leaves no trace, and what is cut apart can be put together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import inputs, run, small_chunks

from mjx.kernels.flash_attention import flash_attention
from mjx.kernels.flash_attention.chunks import cut

IMPLEMENTATIONS = ["reference", "xla", "xla in chunks"]


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request, monkeypatch):
    if request.param == "xla in chunks":
        small_chunks(monkeypatch)
    return request.param.split()[0]


def test_rows_that_see_nothing_are_zero_with_a_log_sum_exp_of_minus_infinity(implementation):
    arrays = inputs(queries=19)
    segments = np.array([[1] * 14 + [0] * 5, [1] * 19])
    out, log_sum_exp, *gradients = run(implementation, *arrays, segment_ids=segments)
    np.testing.assert_array_equal(out[0, 14:], 0)
    np.testing.assert_array_equal(log_sum_exp[0, 14:], -np.inf)
    assert np.isfinite(log_sum_exp[0, :14]).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[0, 14:], 0)


@pytest.mark.parametrize("offset", [-40, np.array([-40, -19])], ids=["known", "per row"])
def test_keys_that_are_all_ahead_give_zero(implementation, offset):
    out, log_sum_exp, *gradients = run(implementation, *inputs(queries=19), query_offset=offset)
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_array_equal(log_sum_exp, -np.inf)
    assert all(not np.any(gradient) for gradient in gradients)


def test_with_sinks_a_row_that_sees_nothing_has_the_sink_as_its_log_sum_exp(implementation):
    *arrays, sinks = inputs(queries=19, sinks=True)
    out, log_sum_exp, *gradients = run(implementation, *arrays, sinks, query_offset=-40)
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_allclose(log_sum_exp, np.broadcast_to(sinks, log_sum_exp.shape), rtol=1e-6)
    assert np.any(gradients[3])


def poisoned(x, where):
    x = x.copy()
    x[where] = np.nan
    return x


def test_padding_full_of_nan_changes_nothing(implementation):
    *arrays, _ = inputs(queries=19)
    segments = np.array([[1] * 14 + [0] * 5, [0] * 3 + [1] * 8 + [2] * 8])
    weight = np.random.RandomState(1).randn(2, 19, 4, 8).astype(np.float32)
    options = {"segment_ids": segments, "relative_bias": np.ones((4, 4), np.float32)}
    clean = run(implementation, *arrays, None, weight=weight, **options)
    *arrays, weight = (poisoned(x, segments == 0) for x in (*arrays, weight))  # the gradient that comes too
    dirty = run(implementation, *arrays, None, weight=weight, **options)
    for a, b in zip(dirty, clean, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("queries", "window"), [(1, None), (11, None), (11, 5)])
def test_slots_of_a_cache_beyond_the_rows_length_may_hold_nan(implementation, queries, window):
    q, k, v, _ = inputs(queries=queries, keys=30)
    offset, places = np.array([3, 12]), np.arange(30)
    unseen = places[None] > offset[:, None] + queries - 1
    if window is not None:
        unseen |= places[None] <= offset[:, None] - window
    options = {"query_offset": offset, "window": window}
    clean = run(implementation, q, k, v, None, **options)
    dirty = run(implementation, q, poisoned(k, unseen), poisoned(v, unseen), None, **options)
    for a, b in zip(dirty, clean, strict=True):
        np.testing.assert_array_equal(a, b)


def test_so_may_keys_beyond_an_offset_known_now(implementation):
    q, k, v, _ = inputs(queries=9, keys=30)
    unseen = np.s_[:, 3 + 9 :]
    clean = run(implementation, q, k, v, None, query_offset=3)
    dirty = run(implementation, q, poisoned(k, unseen), poisoned(v, unseen), None, query_offset=3)
    for a, b in zip(dirty, clean, strict=True):
        np.testing.assert_array_equal(a, b)


def test_packed_documents_equal_separate_ones(implementation):
    q, k, v, _ = inputs(queries=19)
    segments = np.array([[1] * 6 + [2] * 13] * 2)
    packed = run(implementation, q, k, v, None, segment_ids=segments)
    for part in (slice(0, 6), slice(6, 19)):
        alone = flash_attention(
            *(x[:, part] for x in (q, k, v)), return_log_sum_exp=True, implementation=implementation
        )
        np.testing.assert_allclose(packed[0][:, part], alone[0], atol=1e-6)
        np.testing.assert_allclose(packed[1][:, part], alone[1], atol=1e-6)


def test_partial_results_are_joined_by_their_log_sum_exp_as_ring_attention_does(implementation):
    """Each share of the queries meets each share of the keys on its own, at offsets known at run time."""
    arrays = inputs(queries=24)[:3]
    segments = np.array([[1] * 10 + [2] * 14, [1] * 20 + [0] * 4])

    def ring(q, k, v, starts):
        outs, sums = [], []
        for i in range(3):
            mine, out, total = slice(8 * i, 8 * i + 8), 0.0, jnp.full((2, 8, 4), -jnp.inf)
            for j in range(3):
                theirs = slice(8 * j, 8 * j + 8)
                part, part_sum = flash_attention(
                    q[:, mine],
                    k[:, theirs],
                    v[:, theirs],
                    query_segment_ids=segments[:, mine],
                    key_segment_ids=segments[:, theirs],
                    query_offset=starts[i],
                    key_offset=starts[j],
                    return_log_sum_exp=True,
                    implementation=implementation,
                )
                joined = jnp.logaddexp(total, part_sum)
                safe = jnp.where(jnp.isfinite(joined), joined, 0)
                out = out * jnp.exp(total - safe)[..., None] + part * jnp.exp(part_sum - safe)[..., None]
                total = joined
            outs.append(out)
            sums.append(total)
        return jnp.concatenate(outs, 1), jnp.concatenate(sums, 1)

    def whole(q, k, v):
        return flash_attention(
            q, k, v, segment_ids=segments, return_log_sum_exp=True, implementation="reference"
        )

    def gradients(attention):
        def loss(q, k, v):
            out, log_sum_exp = attention(q, k, v)
            return jnp.sum(jnp.sin(3 * out)) + jnp.sum(jnp.where(segments[..., None] > 0, log_sum_exp, 0))

        options = {"xla_backend_optimization_level": 0}
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)), compiler_options=options)(*arrays)

    starts = jnp.array([0, 8, 16])
    expected, ours = gradients(whole), gradients(lambda q, k, v: ring(q, k, v, starts))
    np.testing.assert_allclose(ours[0], expected[0], rtol=1e-5)
    for a, b in zip(ours[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 5, 12])
@pytest.mark.parametrize("distance", [0, 7, -9])
def test_exactly_the_pairs_with_something_to_see_are_computed(causal, window, distance):
    queries, keys, sizes = 21, 30, (4, 6)
    found = cut(queries, keys, causal=causal, window=window, distance=distance, sizes=sizes)
    apart = distance + np.arange(queries)[:, None] - np.arange(keys)
    mask = np.ones_like(apart, bool)
    if causal:
        mask &= apart >= 0
    if window is not None:
        mask &= np.abs(apart) < window
    expected = tuple(
        (i, j)
        for i in range(found.query_chunks)
        for j in range(found.key_chunks)
        if mask[i * 4 : i * 4 + 4, j * 6 : j * 6 + 6].any()
    )
    assert found.pairs == expected


def test_memory_grows_with_the_sequence_and_not_with_its_square():
    def peak(implementation, sequence):
        x = jax.ShapeDtypeStruct((1, sequence, 2, 32), jnp.float32)

        def loss(q, k, v):
            return jnp.sum(flash_attention(q, k, v, implementation=implementation) ** 2)

        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert peak("xla", 8192) < 2.5 * peak("xla", 4096)
    assert peak("xla", 8192) < peak("reference", 8192) / 10
