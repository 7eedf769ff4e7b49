"""Flash attention for Hopper (sm_90a) in Pallas' Mosaic GPU: TMA, wgmma, warpgroups with different tasks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mjx.errors import InputError
from mjx.kernels.flash_attention.blocks import LN_2, Options
from mjx.kernels.flash_attention.mosaic.config import CONFIGS, KernelConfig
from mjx.kernels.flash_attention.options import AttentionOptions

# Options, position of the first query less that of the first key, number of keys, block sizes, interpreter.
_Static = tuple[Options, int, int, KernelConfig, Any]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(static: _Static, q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    return _forward(static, q, k, v)[0]


def _forward(static: _Static, q: Array, k: Array, v: Array) -> Any:
    from mjx.kernels.flash_attention.mosaic.forward import forward

    options, shift, keys, config, interpret = static
    out, log_sum = forward(options, shift, keys, config.forward, q, k, v, interpret)
    log_sum = log_sum[..., : q.shape[1]]
    return (out, log_sum * LN_2), (q, k, v, out, log_sum)


def _backward(static: _Static, residuals: Any, gradients: Any) -> tuple[Array, Array, Array]:
    from mjx.kernels.flash_attention.mosaic.backward import UNSEEN, gradient_of_queries, gradients_of_keys

    options, shift, keys, config, interpret = static
    q, k, v, out, log_sum = residuals
    d_out, d_log_sum = gradients
    delta = jnp.einsum("bqhd,bqhd->bhq", out.astype(jnp.float32), d_out.astype(jnp.float32)) - d_log_sum
    log_sum = jnp.where(jnp.isfinite(log_sum), log_sum, UNSEEN)
    # A copy of one number per token goes through TMA as well, which asks for whole rows of 16 bytes.
    whole = max(config.keys.query, config.queries.query * config.queries.compute)
    padding = [(0, 0), (0, 0), (0, -q.shape[1] % whole)]
    log_sum, delta = jnp.pad(log_sum, padding, constant_values=UNSEEN), jnp.pad(delta, padding)
    arrays = (q, k, v, d_out, log_sum, delta, interpret)
    d_k, d_v = gradients_of_keys(options, shift, config.keys, *arrays)
    return gradient_of_queries(options, shift, keys, config.queries, *arrays), d_k, d_v


_attention.defvjp(_forward, _backward)


def attention(
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads value_dim"],
    options: AttentionOptions,
    *,
    config: KernelConfig | None = None,
    interpret: Any = None,
) -> tuple[Float[Array, "batch query heads value_dim"], Float[Array, "batch query heads"]]:
    """As `flash_attention`, without segments, offsets per row and dropout; `interpret` is Mosaic's
    `InterpretGPUParams`."""
    if options.query_segment_ids is not None or options.key_segment_ids is not None:
        raise InputError("attention: the Mosaic kernels take no segment ids")
    if options.distance is None:
        raise InputError("attention: the Mosaic kernels take offsets that are known when they are compiled")
    widths = (q.shape[-1], v.shape[-1])
    if config is None and widths not in CONFIGS:
        known = ", ".join(f"{head}/{value}" for head, value in CONFIGS)
        raise InputError(
            f"attention: the Mosaic kernels take head_dim/value_dim of {known}, not {widths[0]}/{widths[1]}"
        )
    compiled = Options(float(options.scale), options.causal, options.window, options.soft_cap)
    static = (compiled, options.distance, k.shape[1], config or CONFIGS[widths], interpret)
    results: Any = _attention(static, *(_whole_tiles(x) for x in (q, k, v)))
    out, log_sum = (x[:, : q.shape[1]] for x in (results[0], jnp.swapaxes(results[1], 1, 2)))
    return (out, log_sum) if options.sinks is None else _with_sinks(out, log_sum, options.sinks)


def _whole_tiles(x: Array) -> Array:
    """TMA moves tiles of 8 tokens."""
    missing = -x.shape[1] % 8
    return jnp.pad(x, [(0, 0), (0, missing), (0, 0), (0, 0)]) if missing else x


def _with_sinks(out: Array, log_sum: Array, sinks: Array) -> tuple[Array, Array]:
    """A sink only makes the softmax's sum larger."""
    sinks = sinks.astype(jnp.float32)
    seen = jnp.isfinite(log_sum)
    known = jnp.where(seen, log_sum, 0.0)
    kept = jnp.where(seen, jax.nn.sigmoid(known - sinks), 0.0)
    total = jnp.where(seen, jnp.logaddexp(known, sinks), sinks)
    return (out.astype(jnp.float32) * kept[..., None]).astype(out.dtype), total
