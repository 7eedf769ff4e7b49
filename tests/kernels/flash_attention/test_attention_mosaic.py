"""The Mosaic kernels for Hopper: interpreted with a race detector, lowered, and compiled to machine code."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import NAMES
from jax.experimental.pallas import mosaic_gpu as plgpu

from mjx.errors import InputError
from mjx.gpus.target import lowering_for
from mjx.kernels.flash_attention import flash_attention, mosaic
from mjx.kernels.flash_attention.mosaic import blocks as parts
from mjx.kernels.flash_attention.mosaic.config import CONFIGS, BlockSizes, KernelConfig
from mjx.kernels.flash_attention.options import AttentionOptions

interpreted = pytest.mark.skipif(
    not hasattr(plgpu, "InterpretGPUParams"),
    reason="this jax has no public interpreter of Mosaic GPU kernels",
)

# Few stages, so that buffers are used again.
SMALL = KernelConfig(BlockSizes(64, 64, 2), BlockSizes(64, 64, 2), BlockSizes(64, 64, 2))


@pytest.fixture
def products(monkeypatch):
    """Products of values that are read from shared memory, where the race detector sees it.

    The interpreter knows neither `run_state` nor operands of wgmma in registers, and its wgmma reads unseen.
    """

    def dot(a, b, transpose_b):
        a, b = a[...], b[...]
        # wgmma reads as TMA writes, by the asynchronous proxy; these reads must be made known to it.
        plgpu.commit_smem()
        return jnp.dot(a, b.T if transpose_b else b, preferred_element_type=jnp.float32)

    monkeypatch.setattr(parts, "multiply", lambda a, b, *, transpose_b: dot(a, b, transpose_b))
    monkeypatch.setattr(parts, "accumulate", lambda acc, a, b: acc + dot(a, b, False))


def interpreter():
    return plgpu.InterpretGPUParams(detect_races=True)  # and memory holds NaN at first


def inputs(queries, keys=None, heads=2, kv_heads=1, head_dim=64, dtype=jnp.float32):
    random = np.random.RandomState(0)
    keys = keys or queries
    shapes = ((1, queries, heads, head_dim), (1, keys, kv_heads, head_dim), (1, keys, kv_heads, head_dim))
    return tuple(jnp.asarray(random.randn(*shape), dtype) for shape in shapes)


def results(function, arrays):
    """Output, log-sum-exp and the gradients of a loss that both take part in."""

    def loss(*arrays):
        out, log_sum_exp = function(*arrays)
        slope = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        seen = jnp.isfinite(log_sum_exp)
        total = jnp.sum(out.astype(jnp.float32) * slope)
        return total + jnp.sum(slope[..., 0] * jnp.where(seen, log_sum_exp, 0)), (out, log_sum_exp)

    wanted = tuple(range(len(arrays)))
    gradients, outputs = jax.jit(jax.grad(loss, wanted, has_aux=True))(*arrays)
    return *outputs, *gradients


def kernels(**options):
    def function(q, k, v, sinks=None):
        asked = AttentionOptions(scale=q.shape[-1] ** -0.5, sinks=sinks, **options)
        return mosaic.attention(q, k, v, asked, config=SMALL, interpret=interpreter())

    return function


def other(implementation, **options):
    def function(q, k, v, sinks=None):
        return flash_attention(
            q, k, v, sinks=sinks, return_log_sum_exp=True, implementation=implementation, **options
        )

    return function


CASES = {
    "causal, ragged": ((300,), {}),
    "full, ragged": ((70, 200), {"causal": False}),
    "window": ((192,), {"window": 40}),
    "two-sided window": ((192,), {"window": 40, "causal": False}),
    "soft-cap": ((128,), {"soft_cap": 2.0}),
    "offsets": ((64, 128), {"query_offset": 90, "key_offset": 40}),
    "queries that see nothing, sinks": ((130, 192), {"key_offset": 70}),
}
"""Name → numbers of queries and keys, options. Two query heads share a key head in all."""


@interpreted
@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_as_near_to_float32_as_the_xla_path_and_no_two_threads_race(products, name):
    lengths, options = CASES[name]
    arrays = inputs(*lengths)
    if "sinks" in name:
        arrays = (*arrays, jnp.array([0.5, -1.0]))
    rounded = tuple(x.astype(jnp.bfloat16) for x in arrays)
    exact = results(other("reference", **options), tuple(x.astype(jnp.float32) for x in rounded))
    theirs = results(other("xla", **options), rounded)
    with lowering_for("h100"):
        ours = results(kernels(**options), rounded)
    for what, a, b, truth in zip(NAMES, ours, theirs, exact, strict=False):
        seen = np.isfinite(truth)
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_array_equal(np.isfinite(a), seen, err_msg=what)
        error, allowed = (np.abs(x[seen] - truth[seen]).max() for x in (a, b))
        limit = 2 * allowed + 1e-6 * np.abs(truth[seen]).max()
        if what == "d_sinks":
            # Both paths sum 130 · 64 outputs that are rounded to bfloat16, which makes errors of about
            # 0.3 · 0.35 · 2**-10 · √8320 = 0.01; of two heads alone, how near the XLA path comes is luck.
            limit = 0.02
        assert error <= limit, what


@interpreted
def test_a_buffer_that_is_filled_before_it_is_read_is_a_race_that_the_detector_finds(products, monkeypatch):
    from jax._src.pallas.mosaic_gpu.interpret import interpret_pallas_call

    def hasty(at, free, *copies):
        for source, buffer, ready in copies:
            plgpu.copy_gmem_to_smem(source, buffer.at[at.slot], ready.at[at.slot])

    monkeypatch.setattr(parts, "refill", hasty)
    try:
        with lowering_for("h100"), pytest.raises(Exception, match=r"RACE DETECTED|phase"):
            jax.block_until_ready(jax.jit(kernels(causal=False))(*inputs(64, 320, dtype=jnp.bfloat16)))
    finally:
        interpret_pallas_call.reset_gpu_interpret_mode_state()


def loss(q, k, v, **options):
    out, log_sum_exp = mosaic.attention(q, k, v, AttentionOptions(scale=0.1, **options))
    return jnp.sum(out.astype(jnp.float32)) + jnp.sum(log_sum_exp)


def gradients(**options):
    return jax.grad(lambda *arrays: loss(*arrays, **options), (0, 1, 2))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("widths", CONFIGS)
def test_all_three_kernels_lower_for_an_h100(dtype, widths):
    shapes = [jax.ShapeDtypeStruct((2, 300, heads, widths[0]), dtype) for heads in (8, 2, 2)]
    with lowering_for("h100"):
        lowered = (
            jax.jit(gradients(window=100, soft_cap=30.0)).trace(*shapes).lower(lowering_platforms=("cuda",))
        )
    text = lowered.as_text()
    assert len(re.findall(r"custom_call @mosaic_gpu\w*\(", text)) == 3


def test_other_widths_and_options_are_refused_in_a_sentence():
    q = jnp.zeros((1, 64, 2, 192), jnp.bfloat16)
    with pytest.raises(InputError, match="64/64, 128/128, not 192/192"):
        mosaic.attention(q, q, q, AttentionOptions(scale=1.0))
    asked = AttentionOptions(scale=1.0, query_segment_ids=jnp.ones((1, 64), int))
    with pytest.raises(InputError, match="no segment ids"):
        mosaic.attention(q, q, q, asked)
