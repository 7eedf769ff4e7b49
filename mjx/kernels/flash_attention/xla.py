"""Attention for every device: scores of one layer at a time, and a backward pass that makes them again.

The results of `reference`, with two differences in how: heads come before tokens, so that every
product is one batched GEMM on contiguous operands; and the probabilities are not kept for the
backward pass, which needs only the log-sum-exp of each row (Dao et al. 2022, algorithm 4).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mjx.kernels.flash_attention import reference
from mjx.kernels.flash_attention.mask import attention_mask


class _Options(NamedTuple):
    scale: float
    soft_cap: float | None


def attention(
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads value_dim"],
    *,
    scale: float,
    causal: bool = True,
    window: int | None = None,
    segment_ids: Int[Array, "batch sequence"] | None = None,
    query_offset: int | Int[Array, " batch"] = 0,
    soft_cap: float | None = None,
    sinks: Float[Array, " heads"] | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
) -> Float[Array, "batch query heads value_dim"]:
    """As `reference.attention`. Dropout has to keep its mask, so that with it the reference computes."""
    if dropout_key is not None and dropout_rate > 0:
        return reference.attention(
            q,
            k,
            v,
            scale=scale,
            causal=causal,
            window=window,
            segment_ids=segment_ids,
            query_offset=query_offset,
            soft_cap=soft_cap,
            sinks=sinks,
            dropout_rate=dropout_rate,
            dropout_key=dropout_key,
        )
    batch, queries, heads, _ = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    mask = attention_mask(
        queries, k.shape[1], causal=causal, window=window, segment_ids=segment_ids, query_offset=query_offset
    )
    if sinks is not None:
        sinks = sinks.astype(jnp.float32).reshape(kv_heads, group)

    def heads_first(x: Array) -> Array:
        return jnp.swapaxes(x, 1, 2)

    q = heads_first(q).reshape(batch, kv_heads, group, queries, -1)
    out = _attention(_Options(scale, soft_cap), q, heads_first(k), heads_first(v), mask, sinks)
    return heads_first(out.reshape(batch, heads, queries, -1))


def _output(
    options: _Options,
    q: Float[Array, "batch kv_heads group query head_dim"],
    k: Float[Array, "batch kv_heads key head_dim"],
    v: Float[Array, "batch kv_heads key value_dim"],
    mask: Bool[Array, "#batch query key"] | None,
    sinks: Float[Array, "kv_heads group"] | None,
) -> Float[Array, "batch kv_heads group query value_dim"]:
    return _forward(options, q, k, v, mask, sinks)[0]


_attention = jax.custom_vjp(_output, nondiff_argnums=(0,))


def _forward(options, q, k, v, mask, sinks):
    scores, _ = _scores(options, q, k, mask)
    maximum = jnp.max(scores, axis=-1)
    if sinks is not None:
        maximum = jnp.maximum(maximum, sinks[..., None])
    maximum = jnp.where(jnp.isfinite(maximum), maximum, 0)  # a row that sees nothing
    weights = jnp.exp(scores - maximum[..., None])
    total = jnp.sum(weights, axis=-1)
    if sinks is not None:
        total = total + jnp.exp(sinks[..., None] - maximum)
    total = jnp.where(total == 0, 1, total)
    out = jnp.einsum("bhgqk,bhkd->bhgqd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    out = (out / total[..., None]).astype(v.dtype)
    return out, (q, k, v, mask, sinks, out, maximum + jnp.log(total))


def _backward(options, residuals, d_out):
    q, k, v, mask, sinks, out, log_sum = residuals
    scores, uncapped = _scores(options, q, k, mask)
    probabilities = jnp.exp(scores - log_sum[..., None])
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    d_v = jnp.einsum("bhgqk,bhgqd->bhkd", probabilities.astype(v.dtype), d_out)
    d_probabilities = jnp.einsum("bhgqd,bhkd->bhgqk", d_out, v, preferred_element_type=jnp.float32)
    d_scores = probabilities * (d_probabilities - delta[..., None])
    if options.soft_cap is not None:
        d_scores = d_scores * (1 - jnp.square(jnp.tanh(uncapped / options.soft_cap)))
    d_scores = (d_scores * options.scale).astype(q.dtype)
    d_q = jnp.einsum("bhgqk,bhkd->bhgqd", d_scores, k)
    d_k = jnp.einsum("bhgqk,bhgqd->bhkd", d_scores, q)
    d_sinks = None
    if sinks is not None:
        d_sinks = -jnp.sum(jnp.exp(sinks[..., None] - log_sum) * delta, axis=(0, -1))
    return d_q, d_k, d_v, None, d_sinks


_attention.defvjp(_forward, _backward)


def _scores(options: _Options, q: Array, k: Array, mask: Array | None) -> tuple[Array, Array]:
    """Masked scores in float32, and those before the soft-cap and the mask."""
    raw = jnp.einsum("bhgqd,bhkd->bhgqk", q, k, preferred_element_type=jnp.float32) * options.scale
    scores = raw if options.soft_cap is None else options.soft_cap * jnp.tanh(raw / options.soft_cap)
    return scores if mask is None else jnp.where(mask[:, None, None], scores, -jnp.inf), raw
