"""Attention as the paper writes it: every probability in memory, all of it in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mjx.kernels.flash_attention.mask import attention_mask, places
from mjx.kernels.flash_attention.options import AttentionOptions
from mjx.kernels.flash_attention.relative_bias import whole_bias


def attention(
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads value_dim"],
    options: AttentionOptions,
) -> tuple[Float[Array, "batch query heads value_dim"], Float[Array, "batch query heads"]]:
    """Softmax attention (Vaswani et al. 2017, equation 1) in groups of heads (Ainslie et al. 2023), and
    the log of the softmax's sum. Float64 inputs are computed with in float64."""
    batch, queries, heads, _ = q.shape
    kv_heads, dtype = k.shape[2], v.dtype
    where = places(queries, k.shape[1], options)
    # A probability of 0 times NaN would be NaN.
    if where.query_sees is not None:
        q = jnp.where(where.query_sees[:, :, None, None], q, 0)
    if where.key_seen is not None:
        k, v = (jnp.where(where.key_seen[:, :, None, None], x, 0) for x in (k, v))
    q, k, v = (x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in (q, k, v))

    grouped = q.reshape(batch, queries, kv_heads, heads // kv_heads, -1)
    scores = jnp.einsum("bqhgd,bkhd->bhgqk", grouped, k, precision="highest") * options.scale
    if options.soft_cap is not None:
        scores = options.soft_cap * jnp.tanh(scores / options.soft_cap)
    if options.relative_bias is not None and options.relative_buckets is not None:
        begins = (options.query_offset, queries), (options.key_offset, k.shape[1])
        of_queries, of_keys = (jnp.reshape(begin, (-1, 1)) + jnp.arange(count) for begin, count in begins)
        table = options.relative_bias.astype(scores.dtype)
        bias = whole_bias(table, options.relative_buckets, of_queries, of_keys)
        scores = scores + bias.reshape(bias.shape[0], kv_heads, -1, *bias.shape[2:])
    mask = attention_mask(where, causal=options.causal, window=options.window)
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
    maximum = jnp.max(scores, axis=-1, keepdims=True)
    if options.sinks is not None:
        sink = options.sinks.astype(scores.dtype).reshape(kv_heads, -1, 1, 1)
        maximum = jnp.maximum(maximum, sink)
    maximum = jax.lax.stop_gradient(jnp.where(jnp.isfinite(maximum), maximum, 0))  # a row that sees nothing
    weights = jnp.exp(scores - maximum)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if options.sinks is not None:
        total = total + jnp.exp(sink - maximum)
    empty = total == 0
    total = jnp.where(empty, 1, total)
    log_sum_exp = jnp.where(empty, -jnp.inf, maximum + jnp.log(total))
    probabilities = weights / total
    if options.dropout_key is not None and options.dropout_rate > 0:
        kept = 1 - options.dropout_rate
        keep = jax.random.bernoulli(options.dropout_key, kept, probabilities.shape)
        probabilities = jnp.where(keep, probabilities / kept, 0)
    out = jnp.einsum("bhgqk,bkhd->bqhgd", probabilities, v, precision="highest")
    rows = jnp.moveaxis(log_sum_exp[..., 0], 3, 1).reshape(batch, queries, heads)
    out = out.reshape(batch, queries, heads, -1).astype(dtype)
    if where.query_sees is not None:
        out = jnp.where(where.query_sees[:, :, None, None], out, 0)  # for a gradient that is NaN
    return out, rows
