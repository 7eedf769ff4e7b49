"""Inputs of attention, and its gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mjx.kernels.flash_attention import chunks, flash_attention


def inputs(
    heads=4, kv_heads=2, head_dim=8, value_dim=8, *, queries=19, keys=None, sinks=False, dtype=np.float32
):
    """q, k, v and sinks or None."""
    random = np.random.RandomState(0)
    keys = keys or queries
    q = random.randn(2, queries, heads, head_dim).astype(dtype)
    k = random.randn(2, keys, kv_heads, head_dim).astype(dtype)
    v = random.randn(2, keys, kv_heads, value_dim).astype(dtype)
    return q, k, v, random.randn(heads).astype(dtype) if sinks else None


def run(implementation, q, k, v, sinks, *, weight=None, relative_bias=None, **options):
    """Output, log-sum-exp and every gradient of a loss that both take part in."""
    arrays = {name: value for name, value in options.items() if isinstance(value, np.ndarray)}
    static = tuple((name, value) for name, value in options.items() if name not in arrays)
    return _run(
        implementation, (chunks.ON_CPU, chunks.HALVED), static, weight, arrays, q, k, v, sinks, relative_bias
    )


# Compiled in a hurry, and once for all inputs of the same shapes.
@functools.partial(jax.jit, static_argnums=(0, 1, 2), compiler_options={"xla_backend_optimization_level": 0})
def _run(implementation, sizes, static, weight, arrays, *inputs):
    def loss(q, k, v, sinks, relative_bias):
        out, log_sum_exp = flash_attention(
            q,
            k,
            v,
            sinks=sinks,
            relative_bias=relative_bias,
            return_log_sum_exp=True,
            implementation=implementation,
            **dict(static),
            **arrays,
        )
        slope = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        total = jnp.sum(out.astype(jnp.float32) * (slope if weight is None else weight))
        seen = jnp.isfinite(log_sum_exp)
        return total + jnp.sum(slope[..., 0] * jnp.where(seen, log_sum_exp, 0)), (out, log_sum_exp)

    wanted = tuple(i for i, x in enumerate(inputs) if x is not None)
    gradients, (out, log_sum_exp) = jax.grad(loss, argnums=wanted, has_aux=True)(*inputs)
    return out, log_sum_exp, *gradients


def small_chunks(monkeypatch, size=8):
    monkeypatch.setattr(chunks, "ON_CPU", chunks.ChunkLimits(size, 1))


NAMES = ("out", "log_sum_exp", "d_q", "d_k", "d_v", "d_sinks or d_relative_bias", "d_relative_bias")


def assert_equal(ours, theirs, atol=1e-5):
    for name, a, b in zip(NAMES, ours, theirs, strict=False):
        assert not np.isnan(b).any(), name
        np.testing.assert_allclose(a, b, atol=atol, rtol=1e-5, err_msg=name)
