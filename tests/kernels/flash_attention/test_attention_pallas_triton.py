"""The Pallas-Triton kernels: interpreted on the CPU against the reference, and lowered for a GPU."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import assert_equal, inputs
from jax.experimental import pallas as pl

from mjx.gpus.target import lowering_for
from mjx.kernels.flash_attention import flash_attention, pallas_triton
from mjx.kernels.flash_attention.block_sizes import BlockSizes, KernelConfig, configs
from mjx.kernels.flash_attention.options import AttentionOptions

# Blocks of queries and keys that differ, and that no length here is a multiple of.
SMALL = KernelConfig(BlockSizes(32, 16, 4), BlockSizes(16, 32, 4), BlockSizes(32, 16, 4))
SEGMENTS = np.sort(np.random.RandomState(1).randint(0, 4, (2, 40)), axis=1).astype(np.int32)
WIDE = KernelConfig(
    BlockSizes(32, 16, 4), BlockSizes(16, 32, 4), BlockSizes(32, 16, 4), BlockSizes(32, 16, 4)
)
CASES = {
    "causal": ({}, {}),
    "full": ({}, {"causal": False}),
    "window": ({}, {"window": 9}),
    "two-sided window": ({}, {"window": 5, "causal": False}),
    "segments": ({"queries": 40}, {"segment_ids": SEGMENTS}),
    "soft-cap": ({}, {"soft_cap": 2.0}),
    "sinks": ({"sinks": True}, {}),
    "decoding": ({"queries": 1, "keys": 50}, {"query_offset": np.array([20, 49], np.int32)}),
    "a share of a ring": ({"queries": 24, "keys": 30}, {"query_offset": 60, "key_offset": 40}),
    "multi-query, 80 features": ({"kv_heads": 1, "head_dim": 80, "value_dim": 80}, {}),
    "192 and 128 features": ({"heads": 2, "kv_heads": 2, "head_dim": 192, "value_dim": 128}, {}),
    "all at once": (
        {"queries": 40, "sinks": True, "head_dim": 24, "value_dim": 16},
        {"segment_ids": SEGMENTS, "window": 7, "soft_cap": 3.0},
    ),
}


def kernels(q, k, v, sinks, config=SMALL, **options):
    """As `flash_attention`, interpreted."""
    segments = options.pop("segment_ids", None)
    asked = AttentionOptions(
        scale=q.shape[-1] ** -0.5,
        sinks=sinks,
        query_segment_ids=segments,
        key_segment_ids=segments,
        **options,
    )
    return pallas_triton.attention(q, k, v, asked, config=config, interpret=True)


def reference(q, k, v, sinks, **options):
    return flash_attention(
        q, k, v, sinks=sinks, return_log_sum_exp=True, implementation="reference", **options
    )


def results(function, arrays, options):
    """Output, log-sum-exp and every gradient of a loss that both take part in."""
    given = {name: value for name, value in options.items() if isinstance(value, np.ndarray)}
    fixed = tuple((name, value) for name, value in options.items() if name not in given)
    return _results(function, fixed, given, *arrays)


@functools.partial(jax.jit, static_argnums=(0, 1))  # once for all inputs of the same shapes
def _results(function, fixed, given, *arrays):
    def loss(*arrays):
        out, log_sum_exp = function(*arrays, **dict(fixed), **given)
        slope = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        seen = jnp.isfinite(log_sum_exp)
        total = jnp.sum(out * slope) + jnp.sum(slope[..., 0] * jnp.where(seen, log_sum_exp, 0))
        return total, (out, log_sum_exp)

    wanted = tuple(i for i, array in enumerate(arrays) if array is not None)
    gradients, outputs = jax.grad(loss, wanted, has_aux=True)(*arrays)
    return *outputs, *gradients


@pytest.mark.parametrize("name", CASES)
def test_the_kernels_give_the_reference_s_results_and_gradients(name):
    sizes, options = CASES[name]
    arrays = inputs(**sizes)
    assert_equal(results(kernels, arrays, options), results(reference, arrays, options))


@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 1)])
@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 192, 256])
def test_every_width_with_the_blocks_that_are_shipped_for_it(head_dim, heads, kv_heads):
    arrays = inputs(heads, kv_heads, head_dim, head_dim, queries=70)
    config = configs(head_dim, head_dim, "bfloat16", 9.0)[0]
    ours = results(kernels, arrays, {"config": config})
    assert_equal(ours, results(reference, arrays, {}))


@pytest.mark.parametrize("name", ["all at once", "192 and 128 features", "decoding"])
def test_a_kernel_of_their_own_for_the_gradients_of_values_changes_nothing(name):
    sizes, options = CASES[name]
    arrays = inputs(**sizes)
    ours = results(kernels, arrays, options | {"config": WIDE})
    assert_equal(ours, results(reference, arrays, options))


def test_padding_that_holds_nan_is_not_looked_at():
    q, k, v, _ = inputs(queries=40)
    poisoned = [np.where((SEGMENTS > 0)[..., None, None], x, np.nan).astype(np.float32) for x in (k, v)]
    options = {"segment_ids": SEGMENTS}
    assert (SEGMENTS == 0).any()
    clean = results(kernels, (q, k, v, None), options)
    assert_equal(results(kernels, (q, *poisoned, None), options), clean)


def test_bfloat16_is_as_near_to_float32_as_the_xla_path():
    arrays = inputs(queries=64, head_dim=64, value_dim=64)
    exact = results(reference, arrays, {})
    rounded = tuple(None if x is None else jnp.asarray(x, jnp.bfloat16) for x in arrays)

    def xla(q, k, v, sinks, **options):
        return flash_attention(q, k, v, sinks=sinks, return_log_sum_exp=True, implementation="xla", **options)

    for ours, theirs, truth in zip(
        results(kernels, rounded, {}), results(xla, rounded, {}), exact, strict=True
    ):
        scale = np.abs(truth).max()
        error, allowed = (np.abs(np.asarray(x, np.float32) - truth).max() / scale for x in (ours, theirs))
        assert error <= 2 * allowed + 1e-6


@pytest.mark.parametrize("head_dim", [64, 80, 128, 192, 256])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_all_kernels_lower_for_a_gpu(triton_programs, head_dim, dtype):
    shapes = [jax.ShapeDtypeStruct((2, 300, heads, head_dim), dtype) for heads in (8, 2, 2)]

    def loss(q, k, v):
        out, log_sum_exp = pallas_triton.attention(q, k, v, AttentionOptions(0.1, window=100, soft_cap=30.0))
        return jnp.sum(out.astype(jnp.float32)) + jnp.sum(log_sum_exp)

    with lowering_for("h100"):
        traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*shapes)
        kernels = triton_programs(traced.lower(lowering_platforms=("cuda",)))
    wide = configs(head_dim, head_dim, dtype, 9.0)[0].values is not None
    assert len(kernels) == 3 + wide
    for text in kernels:
        assert "tt.dot" in text
        # An error of 1e-3 where float32 is promised; of bfloat16 the word means nothing.
        assert not re.search(r"tf32 : tensor<\w+xf32>", text)


@pytest.mark.parametrize(
    ("kind", "config"),
    [("forward", SMALL), ("keys", SMALL), ("queries", SMALL), ("keys", WIDE), ("values", WIDE)],
)
def test_no_two_programs_write_one_block(monkeypatch, kind, config):
    """What interpret mode, which runs one after the other, cannot see."""
    calls = {}

    def note(kernel, *, grid, out_specs, out_shape, name, **options):
        calls[name] = (grid, out_specs, out_shape)
        return pallas_call(kernel, grid=grid, out_specs=out_specs, out_shape=out_shape, name=name, **options)

    pallas_call = pl.pallas_call
    monkeypatch.setattr(pl, "pallas_call", note)
    loss = jax.grad(lambda *arrays: jnp.sum(kernels(*arrays, None, config)[0]), (0, 1, 2))
    jax.eval_shape(loss, *inputs(queries=70)[:3])
    grid, specs, shapes = calls[f"flash_attention_{kind}"]
    for spec, shape in zip(specs, shapes, strict=True):
        blocks = [spec.index_map(*place) for place in itertools.product(*map(range, grid))]
        assert len(set(blocks)) == len(blocks)
        sizes = [1 if size is None else size for size in spec.block_shape]
        covered = len(blocks) * np.prod(sizes)
        assert covered == np.prod(shape.shape), "every element is written"
