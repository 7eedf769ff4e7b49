"""Attention, one row, one head and one query at a time."""

import math
from typing import Any

import numpy as np

from reference.linear import Parameters, below, linear
from reference.mlp import sigmoid
from reference.norm import norm
from reference.relative_buckets import bucket
from reference.rotation import rotate


def attend(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    soft_cap: float | None = None,
    sinks: np.ndarray | None = None,
    relative_bias: np.ndarray | None = None,
    relative_buckets: Any = None,
    segment_ids: np.ndarray | None = None,
    query_segment_ids: np.ndarray | None = None,
    key_segment_ids: np.ndarray | None = None,
    query_offset: int | np.ndarray = 0,
    key_offset: int | np.ndarray = 0,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The output (batch, query, heads, value_dim) and the log-sum-exp (batch, query, heads).

    q is (batch, query, heads, head_dim), k and v are (batch, key, kv_heads, …); the other options are
    those of `mjx.kernels.flash_attention`. `mask` (batch, query, key) is True where a query may see.
    """
    (batch, queries, heads, head_dim), keys, kv_heads = q.shape, k.shape[1], k.shape[2]
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    scale = 1 / math.sqrt(head_dim) if scale is None else scale
    of_queries = segment_ids if query_segment_ids is None else query_segment_ids
    of_keys = segment_ids if key_segment_ids is None else key_segment_ids
    first_query, first_key = (np.broadcast_to(offset, batch) for offset in (query_offset, key_offset))

    def sees(row: int, i: int, j: int) -> bool:
        distance = (first_query[row] + i) - (first_key[row] + j)
        return (
            not (causal and distance < 0)
            and (window is None or abs(distance) < window)
            and (of_queries is None or of_queries[row, i] == of_keys[row, j] > 0)
            and (mask is None or bool(mask[row, i, j]))
        )

    def bias(row: int, i: int, seen: list[int], head: int) -> np.ndarray | float:
        if relative_bias is None:
            return 0.0
        count, kind = len(relative_bias), relative_buckets
        two_sided, furthest = (not causal, 128) if kind is None else (kind.two_sided, kind.max_distance)
        place = first_key[row] - first_query[row] - i
        numbers = [bucket(int(place + j), count, furthest, two_sided=two_sided) for j in seen]
        return relative_bias[numbers, head]

    out = np.zeros((batch, queries, heads, v.shape[-1]))
    log_sum_exp = np.full((batch, queries, heads), -np.inf)
    for row in range(batch):
        for i in range(queries):
            seen = [j for j in range(keys) if sees(row, i, j)]
            for head in range(heads):
                group = head // (heads // kv_heads)
                scores = scale * k[row, seen, group] @ q[row, i, head]
                if soft_cap is not None:
                    scores = soft_cap * np.tanh(scores / soft_cap)
                weights = np.exp(scores + bias(row, i, seen, head))
                total = weights.sum() + (0 if sinks is None else np.exp(np.float64(sinks[head])))
                if total > 0:
                    log_sum_exp[row, i, head] = np.log(total)
                    out[row, i, head] = weights @ v[row, seen, group] / total
    return out, log_sum_exp


def attention(
    config,
    p: Parameters,
    x: np.ndarray,
    *,
    positions: np.ndarray | None = None,
    segment_ids: np.ndarray | None = None,
    memory: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    relative_bias: np.ndarray | None = None,
) -> np.ndarray:
    """The sub-layer of a resolved `AttentionConfig`: projections, norms, rotation, softmax, gate, output.

    With `memory` (batch, key, features) keys and values are made of that, and nothing is rotated; it is
    all seen, but where `mask` (batch, query, key) is False. `positions` are those in the row by default.
    `relative_bias` (buckets, heads) is the stack's, where the config asks for it.
    """
    source = x if memory is None else memory
    q = linear(p, "query", "bse,ehd->bshd", x)
    k, v = (linear(p, name, "bse,ehd->bshd", source) for name in ("key", "value"))
    if config.qk_norm is not None:
        over = -1 if config.qk_norm_over == "head" else (-2, -1)
        q = norm(config.qk_norm, below(p, "query_norm"), q, over)
        k = norm(config.qk_norm, below(p, "key_norm"), k, over)
    if config.rope is not None and memory is None:
        positions = np.arange(x.shape[1])[None] if positions is None else positions
        q, k = rotate(config.rope, q, positions), rotate(config.rope, k, positions)
    sinks = {"vanilla": None, "off-by-one": np.zeros(q.shape[2])}.get(config.softmax, p.get("sinks"))
    out, _ = attend(
        q,
        k,
        v,
        scale=config.scale,
        causal=config.causal and memory is None,
        window=config.window,
        soft_cap=config.soft_cap,
        sinks=sinks,
        segment_ids=segment_ids if memory is None else None,
        mask=mask,
        relative_bias=relative_bias,
        relative_buckets=None if relative_bias is None else config.scores.relative_buckets,
    )
    if config.output_gate:
        out = out * sigmoid(linear(p, "gate", "bse,ehd->bshd", x))
    return linear(p, "output", "bshd,hde->bse", out)
