"""The Mosaic kernels for Hopper: interpreted with a race detector, lowered, and compiled to machine code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import NAMES
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.sharding import AbstractDevice, AbstractMesh

from mjx.kernels.flash_attention import flash_attention, mosaic
from mjx.kernels.flash_attention import mosaic_blocks as parts
from mjx.kernels.flash_attention.mosaic_config import BlockSizes, KernelConfig

interpreted = pytest.mark.skipif(
    not hasattr(plgpu, "InterpretGPUParams"), reason="this jax has no public interpreter of Mosaic GPU kernels"
)

# Blocks of queries and keys that differ.
SMALL = KernelConfig(BlockSizes(64, 32, 2), BlockSizes(32, 64, 2), BlockSizes(64, 32, 2))


def on_an_h100():
    device = AbstractDevice("NVIDIA H100 80GB HBM3", None, "cuda")
    return jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


@pytest.fixture
def products(monkeypatch):
    """The interpreter knows neither `run_state` nor operands of wgmma in registers, and its wgmma reads without
    being seen by the race detector: products of values that are read from shared memory."""

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
        return mosaic.attention(
            q, k, v, sinks=sinks, scale=q.shape[-1] ** -0.5, config=SMALL, interpret=interpreter(), **options
        )

    return function


def other(implementation, **options):
    def function(q, k, v, sinks=None):
        return flash_attention(
            q, k, v, sinks=sinks, return_log_sum_exp=True, implementation=implementation, **options
        )

    return function


CASES = {
    "causal": ((256,), {}),
    "full, grouped heads": ((128, 192), {"causal": False}),
    "ragged": ((150,), {}),
    "ragged and full": ((70, 100), {"causal": False}),
    "window": ((192,), {"window": 40}),
    "two-sided window": ((192,), {"window": 40, "causal": False}),
    "soft-cap": ((128,), {"soft_cap": 2.0}),
    "offsets": ((64, 128), {"query_offset": 90, "key_offset": 40}),
}


@interpreted
@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_as_near_to_float32_as_the_xla_path_and_no_two_threads_race(products, name):
    lengths, options = CASES[name]
    arrays = inputs(*lengths)
    exact = results(other("reference", **options), arrays)
    rounded = tuple(x.astype(jnp.bfloat16) for x in arrays)
    theirs = results(other("xla", **options), rounded)
    with on_an_h100():
        ours = results(kernels(**options), rounded)
    for what, a, b, truth in zip(NAMES, ours, theirs, exact, strict=False):
        seen = np.isfinite(truth)
        np.testing.assert_array_equal(np.isfinite(np.asarray(a, np.float32)), seen, err_msg=what)
        truth = np.where(seen, truth, 0)
        error, allowed = (
            np.abs(np.where(seen, np.asarray(x, np.float32), 0) - truth).max() / np.abs(truth).max() for x in (a, b)
        )
        print(name, what, error, allowed)
        assert error <= 2 * allowed + 1e-6, what
