"""Attention as the paper writes it: every probability in memory, softmax in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mjx.kernels.flash_attention.mask import attention_mask


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
    """Softmax attention (Vaswani et al. 2017, equation 1), in groups of heads (Ainslie et al. 2023)."""
    batch, queries, heads, _ = q.shape
    kv_heads = k.shape[2]
    grouped = q.reshape(batch, queries, kv_heads, heads // kv_heads, -1)
    scores = jnp.einsum("bqhgd,bkhd->bhgqk", grouped, k, preferred_element_type=jnp.float32) * scale
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    mask = attention_mask(
        queries, k.shape[1], causal=causal, window=window, segment_ids=segment_ids, query_offset=query_offset
    )
    if mask is not None:
        mask = mask[:, None, None]
        scores = jnp.where(mask, scores, -jnp.inf)
    maximum = jnp.max(scores, axis=-1, keepdims=True)
    if sinks is not None:
        sink = sinks.astype(jnp.float32).reshape(kv_heads, -1, 1, 1)
        maximum = jnp.maximum(maximum, sink)
    maximum = jax.lax.stop_gradient(jnp.where(jnp.isfinite(maximum), maximum, 0))  # a row that sees nothing
    weights = jnp.exp(scores - maximum)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if sinks is not None:
        total = total + jnp.exp(sink - maximum)
    probabilities = weights / jnp.where(total == 0, 1, total)
    if dropout_key is not None and dropout_rate > 0:
        keep = jax.random.bernoulli(dropout_key, 1 - dropout_rate, probabilities.shape)
        probabilities = jnp.where(keep, probabilities / (1 - dropout_rate), 0)
    out = jnp.einsum("bhgqk,bkhd->bqhgd", probabilities.astype(v.dtype), v)
    return out.reshape(batch, queries, heads, -1)
