"""Softmax attention: one function, several implementations."""

from importlib import import_module
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mjx.kernels.call import given, implementation_of
from mjx.kernels.flash_attention.arguments import (
    check_arrays,
    check_numbers,
    offset,
    relative,
    segments,
)
from mjx.kernels.flash_attention.implementations import IMPLEMENTATIONS
from mjx.kernels.flash_attention.mask import visible_keys
from mjx.kernels.flash_attention.options import AttentionOptions
from mjx.kernels.flash_attention.relative_bias import RelativeBuckets

__all__ = ["chosen_implementation", "flash_attention"]


def flash_attention(
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads value_dim"],
    *,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    segment_ids: Int[Array, "batch sequence"] | None = None,
    query_segment_ids: Int[Array, "batch query"] | None = None,
    key_segment_ids: Int[Array, "batch key"] | None = None,
    query_offset: int | Int[Array, " batch"] = 0,
    key_offset: int | Int[Array, " batch"] = 0,
    soft_cap: float | None = None,
    sinks: Float[Array, " heads"] | None = None,
    relative_bias: Float[Array, "buckets heads"] | None = None,
    relative_buckets: RelativeBuckets | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    return_log_sum_exp: bool = False,
    implementation: str = "auto",
) -> Any:
    """softmax(scale · q kᵀ) v, in groups of heads (query head h uses key head h // (heads / kv_heads)).

    Differentiable in q, k, v, sinks and relative_bias, through the log-sum-exp too. A query that sees no
    key gives zero, and its log-sum-exp is -inf (with sinks: the sink). Keys that no query of their row can
    see (segment 0, or out of sight by the offsets) may hold anything, NaN too, and get the gradient zero.

    Returns Float[Array, "batch query heads value_dim"]; with `return_log_sum_exp` also
    Float[Array, "batch query heads"].

    - scale: on the scores; default 1/√head_dim.
    - causal: a query sees the keys at its own position and before it.
    - window: a query sees its own position and the window - 1 before it; unless causal, those behind too.
    - segment_ids: documents of a packed row, from 1, which do not see each other; 0 is padding. Of queries
      and keys alike, or of each for itself.
    - query_offset: the position of the first query, of all rows or of each. While decoding it is the number
      of tokens before; in ring attention it is where the device's share begins. key_offset: of the first key.
    - soft_cap: bounds scores s to cap · tanh(s / cap) (Gemma 2).
    - sinks: a score per head that takes part in the softmax and has no value (gpt-oss).
    - relative_bias: added to scores, by head and bucket of the distance of key and query (T5: Raffel et al.
      2020, section 2.1). Neither `scale` nor `soft_cap` is applied to it.
    - relative_buckets: which distances share a bucket; default two-sided unless causal, to 128.
    - dropout_rate: on the probabilities, if there is a `dropout_key`.
    - return_log_sum_exp: also return the log of the softmax's sum, sinks in it, in float32 (float64 for
      float64 inputs): with it, attention to several sets of keys becomes attention to all.
    - implementation: one of `mjx backends`; `auto` takes the first that can do what is asked here.

    Raises:
        InputError: shapes, dtypes or options that do not fit each other, or that the implementation
            cannot do.
    """
    q, k, v, sinks, relative_bias = given(q, k, v, sinks, relative_bias)
    check_arrays(q, k, v, sinks)
    check_numbers(scale=scale, window=window, soft_cap=soft_cap, dropout_rate=dropout_rate)
    of_queries, of_keys = segments(q, k, segment_ids, query_segment_ids, key_segment_ids)
    if dropout_rate == 0 or dropout_key is None:
        dropout_rate, dropout_key = 0.0, None
    options = AttentionOptions(
        scale=q.shape[3] ** -0.5 if scale is None else float(scale),
        causal=causal,
        window=window,
        query_segment_ids=of_queries,
        key_segment_ids=of_keys,
        query_offset=offset("query_offset", query_offset, q.shape[0]),
        key_offset=offset("key_offset", key_offset, q.shape[0]),
        soft_cap=soft_cap,
        sinks=sinks,
        relative_bias=relative_bias,
        relative_buckets=relative(q, relative_bias, relative_buckets, causal=causal),
        dropout_rate=dropout_rate,
        dropout_key=dropout_key,
    )
    name = chosen_implementation(q, k, v, options, implementation, return_log_sum_exp=return_log_sum_exp)
    module = import_module(f"{__name__}.{name}")
    out, log_sum_exp = module.attention(q, *_in_sight(q.shape[1], k, v, options))
    return (out, log_sum_exp) if return_log_sum_exp else out


def chosen_implementation(
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads value_dim"],
    options: AttentionOptions,
    implementation: str = "auto",
    *,
    return_log_sum_exp: bool = False,
) -> str:
    """The name of the one that computes this call here.

    Raises:
        InputError: the one that is named, or for `auto` every one, cannot do what is asked.
    """
    distance, window = options.distance, options.window
    asked = {
        "gqa": k.shape[2] != q.shape[2],
        "window": window is not None and options.causal,
        "two-sided window": window is not None and not options.causal,
        "segments": options.query_segment_ids is not None,
        "soft-cap": options.soft_cap is not None,
        "sinks": options.sinks is not None,
        "relative bias": options.relative_bias is not None,
        "offsets": distance is not None and (distance != 0 or (options.causal and q.shape[1] > k.shape[1])),
        "offset per row": distance is None,
        "log-sum-exp": return_log_sum_exp,
        "dropout": options.dropout_key is not None and options.dropout_rate > 0,
        "value_dim": v.shape[3] != q.shape[3],
    }
    sizes = {"head_dim": q.shape[3], "queries": q.shape[1], "keys": k.shape[1]}
    return implementation_of(
        "attention", IMPLEMENTATIONS, implementation, dtype=q.dtype.name, asked=asked, sizes=sizes
    )


def _in_sight(queries: int, k: Array, v: Array, options: AttentionOptions) -> tuple[Any, ...]:
    """Keys, values and options without the keys that no query can see by its position."""
    first, ids = options.key_offset, options.key_segment_ids
    if options.distance is None or not isinstance(first, int):
        return k, v, options
    begin, end = visible_keys(
        queries, k.shape[1], causal=options.causal, window=options.window, distance=options.distance
    )
    if begin >= end:  # one key that nothing sees: no array is without elements
        ids = None if ids is None else ids[:, :1]
        return jnp.zeros_like(k[:, :1]), jnp.zeros_like(v[:, :1]), options._replace(key_segment_ids=ids)
    if (begin, end) == (0, k.shape[1]):
        return k, v, options
    k, v = k[:, begin:end], v[:, begin:end]
    ids = None if ids is None else ids[:, begin:end]
    return k, v, options._replace(key_segment_ids=ids, key_offset=first + begin)
