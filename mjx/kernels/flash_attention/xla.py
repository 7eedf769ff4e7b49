"""Attention for every device, chunk by chunk: memory grows with the sequence, not with its square.

Queries and keys are cut into chunks. One loop goes over the pairs of chunks that causality and the
window leave, with the softmax's maximum and sum kept up to date (Milakov and Gimelshein 2018); the
backward pass goes over them again and needs only the log-sum-exp of each row (Dao et al. 2022,
algorithm 4). A short sequence is one pair, without a loop. Heads come before tokens, so that every
product is one batched GEMM on contiguous operands.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from mjx.kernels.capability import current_device
from mjx.kernels.flash_attention.chunks import Chunks, chunk_sizes, cut, worth_halving
from mjx.kernels.flash_attention.mask import Places, attention_mask, places
from mjx.kernels.flash_attention.options import AttentionOptions
from mjx.kernels.flash_attention.relative_bias import RelativeBias, RelativeBuckets


class _Static(NamedTuple):
    chunks: Chunks
    keys: int
    scale: float
    causal: bool
    window: int | None
    soft_cap: float | None
    dropout_rate: float
    buckets: RelativeBuckets | None


class _Arrays(NamedTuple):
    """Chunks first. What has no chunk axis: sinks, relative bias and the dropout key."""

    q: Float[Array, "query_chunks batch kv_heads group query head_dim"]
    k: Float[Array, "key_chunks batch kv_heads key head_dim"]
    v: Float[Array, "key_chunks batch kv_heads key value_dim"]
    sinks: Float[Array, "kv_heads group"] | None
    relative: RelativeBias | None
    where: Places
    dropout_key: Key[Array, ""] | None


def attention(
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads value_dim"],
    options: AttentionOptions,
) -> tuple[Float[Array, "batch query heads value_dim"], Float[Array, "batch query heads"]]:
    """As `reference.attention`.

    Dropout draws the reference's mask as long as there is one chunk, and then one for each pair.
    """
    if _halved(q.shape[1], k.shape[1], options):
        return _in_halves(q, k, v, options)
    return _in_chunks(q, k, v, options)


def _halved(queries: int, keys: int, options: AttentionOptions) -> bool:
    """Whether one chunk is cut into halves of its queries, the first of which sees only half of the keys: a
    quarter of the products less. On a GPU, each would be a kernel that is too small."""
    square = options.causal and options.distance == 0 and queries == keys and worth_halving(queries)
    return square and options.dropout_rate == 0 and current_device()[0] == "cpu"


def _in_halves(q: Array, k: Array, v: Array, options: AttentionOptions) -> tuple[Array, Array]:
    def part(start: int, end: int) -> tuple[Array, Array]:
        of_queries, of_keys = options.query_segment_ids, options.key_segment_ids
        of_part = options._replace(
            query_offset=options.query_offset + start,
            query_segment_ids=None if of_queries is None else of_queries[:, start:end],
            key_segment_ids=None if of_keys is None else of_keys[:, :end],
        )
        return _in_chunks(q[:, start:end], k[:, :end], v[:, :end], of_part)

    queries = q.shape[1]
    outs, log_sum_exps = zip(part(0, queries // 2), part(queries // 2, queries), strict=True)
    return jnp.concatenate(outs, axis=1), jnp.concatenate(log_sum_exps, axis=1)


def _in_chunks(q: Array, k: Array, v: Array, options: AttentionOptions) -> tuple[Array, Array]:
    batch, queries, heads, _ = q.shape
    keys, kv_heads = k.shape[1:3]
    where = places(queries, keys, options)
    sizes = chunk_sizes(queries, keys)
    chunks = cut(
        queries, keys, causal=options.causal, window=options.window, distance=options.distance, sizes=sizes
    )

    def chunked(x: Array, count: int, chunk: int, fill: str = "constant") -> Array:
        """[batch, sequence, …] → [chunks, batch, chunk, …]"""
        short = count * chunk - x.shape[1]
        if short:
            x = jnp.pad(x, [(0, 0), (0, short), *[(0, 0)] * (x.ndim - 2)], mode=fill)
        return jnp.moveaxis(x.reshape(x.shape[0], count, chunk, *x.shape[2:]), 1, 0)

    of_queries = chunks.query_chunks, chunks.query_chunk
    of_keys = chunks.key_chunks, chunks.key_chunk
    q = jnp.moveaxis(chunked(q.reshape(batch, queries, kv_heads, heads // kv_heads, -1), *of_queries), 2, 4)
    k, v = (jnp.swapaxes(chunked(x, *of_keys), 2, 3) for x in (k, v))
    # What fills the last chunk of queries stands where the last query does: it sees no key that none should.
    where = Places(
        *(
            None if x is None else chunked(x, *cutting, fill="edge")
            for x, cutting in zip(where, (of_queries, of_keys) * 3, strict=True)
        )
    )
    sinks = options.sinks
    if sinks is not None:
        sinks = sinks.astype(_accumulator(q)).reshape(kv_heads, -1)
    relative = None
    if options.relative_bias is not None:
        table = options.relative_bias.T.astype(_accumulator(q)).reshape(kv_heads, heads // kv_heads, -1)
        first = jnp.asarray(options.query_offset - options.key_offset, jnp.int32).reshape(-1)
        relative = RelativeBias(table, first)
    if len(chunks.pairs) > 1:
        # Places that depend on the queries: by themselves they are the same in every layer, and masks and
        # biases would be taken out of the loops over layers and chunks, those of all pairs of tokens at once.
        q, where, relative = jax.lax.optimization_barrier((q, where, relative))
    static = _Static(
        chunks,
        keys,
        options.scale,
        options.causal,
        options.window,
        options.soft_cap,
        options.dropout_rate,
        options.relative_buckets,
    )
    dropout_key = options.dropout_key if options.dropout_rate else None
    out, log_sum_exp = _attention(static, q, k, v, sinks, relative, where, dropout_key)

    def joined(x: Array) -> Array:
        """[chunks, batch, kv_heads, group, chunk, …] → [batch, sequence, heads, …]"""
        x = jnp.moveaxis(jnp.moveaxis(x, 4, 2), 0, 1)
        return x.reshape(batch, -1, heads, *x.shape[5:])[:, :queries]

    return joined(out), joined(log_sum_exp)


def _output(static: _Static, *arrays):
    return _forward(static, *arrays)[0]


_attention = jax.custom_vjp(_output, nondiff_argnums=(0,))


def _forward(static: _Static, *inputs):
    arrays = _Arrays(*inputs)
    pairs = static.chunks.pairs
    if len(pairs) == static.chunks.query_chunks == static.chunks.key_chunks == 1:
        maximum, total, summed = (x[None] for x in _attend(static, arrays, 0, 0, None))
    else:
        rows = arrays.q.shape[:-1]
        value_dim, dtype = arrays.v.shape[-1], _accumulator(arrays.q)
        state = (
            jnp.full(rows, -jnp.inf, dtype),
            jnp.zeros(rows, dtype),
            jnp.zeros((*rows, value_dim), dtype),
        )

        def step(state, pair):
            before = _at(state, pair[0])
            return _put(state, _attend(static, arrays, pair[0], pair[1], before), pair[0]), None

        if pairs:
            state, _ = jax.lax.scan(step, state, jnp.array(pairs, jnp.int32))
        maximum, total, summed = state
    empty = total == 0
    total = jnp.where(empty, 1, total)
    out = summed / total[..., None]
    log_sum_exp = jnp.where(empty, -jnp.inf, maximum + jnp.log(total))
    if arrays.sinks is not None:
        with_sink = jnp.logaddexp(log_sum_exp, arrays.sinks[..., None])
        out = out * jnp.exp(log_sum_exp - with_sink)[..., None]
        log_sum_exp = with_sink
    out = out.astype(arrays.v.dtype)
    return (out, log_sum_exp), (arrays, out, log_sum_exp)


def _attend(static: _Static, arrays: _Arrays, i, j, before):
    """Maximum, sum of weights and weighted values of query chunk i, `before` key chunk j and with it."""
    v = _seen(arrays, _at(arrays.v, j), j)
    scores, _ = _scores(static, arrays, i, j)
    maximum = jnp.max(scores, axis=-1)
    if before is not None:
        maximum = jnp.maximum(maximum, before[0])
    finite = jnp.where(jnp.isfinite(maximum), maximum, 0)  # a row that has seen nothing
    weights = jnp.exp(scores - finite[..., None])
    total = jnp.sum(weights, axis=-1)
    keep = _keep(static, arrays, i, j, weights.shape)
    if keep is not None:
        weights = jnp.where(keep, weights / (1 - static.dropout_rate), 0)
    summed = jnp.einsum("bhgqk,bhkd->bhgqd", weights.astype(v.dtype), v, preferred_element_type=scores.dtype)
    if before is not None:
        factor = jnp.exp(before[0] - finite)
        total = total + factor * before[1]
        summed = summed + factor[..., None] * before[2]
    return maximum, total, summed


def _backward(static: _Static, residuals, gradients):
    arrays, out, log_sum_exp = residuals
    d_out, d_log_sum_exp = gradients
    dtype = _accumulator(arrays.q)
    empty = ~jnp.isfinite(log_sum_exp)
    delta = jnp.sum(d_out.astype(dtype) * out.astype(dtype), axis=-1)
    if arrays.where.query_sees is not None:
        delta = jnp.where(arrays.where.query_sees[:, :, None, None], delta, 0)
    # What each score's probability is multiplied with, besides the gradient of the probability itself.
    delta = delta - jnp.where(empty, 0, d_log_sum_exp)
    rows = d_out, delta, jnp.where(empty, 0, log_sum_exp)
    pairs = static.chunks.pairs
    if len(pairs) == static.chunks.query_chunks == static.chunks.key_chunks == 1:
        *of_chunks, d_table = _attend_backward(static, arrays, rows, 0, 0)
        d_q, d_k, d_v = (x[None] for x in of_chunks)
    else:
        totals = [jnp.zeros(x.shape, dtype) for x in (arrays.q, arrays.k, arrays.v)]
        d_table = None if arrays.relative is None else jnp.zeros_like(arrays.relative.table)

        def step(state, pair):
            (totals, d_table), (i, j) = state, pair
            *added, of_table = _attend_backward(static, arrays, rows, i, j)
            totals = [
                _put(total, _at(total, at) + more, at)
                for total, more, at in zip(totals, added, (i, j, j), strict=True)
            ]
            return (totals, None if of_table is None else d_table + of_table), None

        if pairs:
            (totals, d_table), _ = jax.lax.scan(step, (totals, d_table), jnp.array(pairs, jnp.int32))
        d_q, d_k, d_v = totals
    d_sinks = None
    if arrays.sinks is not None:
        d_sinks = -jnp.sum(jnp.exp(arrays.sinks[..., None] - log_sum_exp) * delta, axis=(0, 1, -1))
    d_q, d_k, d_v = (d.astype(x.dtype) for d, x in zip((d_q, d_k, d_v), arrays[:3], strict=True))
    d_relative = None if arrays.relative is None else arrays.relative._replace(table=d_table, distance=None)
    return d_q, d_k, d_v, d_sinks, d_relative, None, None


def _attend_backward(
    static: _Static, arrays: _Arrays, rows, i, j
) -> tuple[Array, Array, Array, Array | None]:
    """What this pair of chunks adds to the gradients of its queries, keys and values, and of the table of the
    relative bias."""
    q, (d_out, delta, log_sum_exp) = _at(arrays.q, i), _at(rows, i)
    k, v = (_seen(arrays, _at(x, j), j) for x in (arrays.k, arrays.v))
    if arrays.where.query_sees is not None:
        sees = _at(arrays.where.query_sees, i)[:, None, None, :, None]
        q, d_out = jnp.where(sees, q, 0), jnp.where(sees, d_out, 0)
    scores, uncapped = _scores(static, arrays, i, j)
    dtype = scores.dtype
    probabilities = jnp.exp(scores - log_sum_exp[..., None])
    d_probabilities = jnp.einsum("bhgqd,bhkd->bhgqk", d_out, v, preferred_element_type=dtype)
    dropped = probabilities
    keep = _keep(static, arrays, i, j, scores.shape)
    if keep is not None:
        factor = jnp.where(keep, 1 / (1 - static.dropout_rate), 0)
        dropped, d_probabilities = probabilities * factor, d_probabilities * factor
    d_v = jnp.einsum("bhgqk,bhgqd->bhkd", dropped.astype(v.dtype), d_out, preferred_element_type=dtype)
    d_scores = probabilities * (d_probabilities - delta[..., None])
    d_table = None
    if arrays.relative is not None and static.buckets is not None:
        d_table = arrays.relative.gradient(static.buckets, i, j, d_scores)
    if static.soft_cap is not None:
        d_scores = d_scores * (1 - jnp.square(jnp.tanh(uncapped / static.soft_cap)))
    d_scores = (d_scores * static.scale).astype(q.dtype)
    d_q = jnp.einsum("bhgqk,bhkd->bhgqd", d_scores, k, preferred_element_type=dtype)
    d_k = jnp.einsum("bhgqk,bhgqd->bhkd", d_scores, q, preferred_element_type=dtype)
    return d_q, d_k, d_v, d_table


_attention.defvjp(_forward, _backward)


def _scores(static: _Static, arrays: _Arrays, i, j) -> tuple[Array, Array]:
    """Masked scores of a pair of chunks, and those before the soft-cap, the bias and the mask."""
    q, k = _at(arrays.q, i), _at(arrays.k, j)
    raw = jnp.einsum("bhgqd,bhkd->bhgqk", q, k, preferred_element_type=_accumulator(q)) * static.scale
    scores = raw if static.soft_cap is None else static.soft_cap * jnp.tanh(raw / static.soft_cap)
    if arrays.relative is not None and static.buckets is not None:
        scores = scores + arrays.relative.of_pair(static.buckets, i, j, q.shape[-2], k.shape[-2])
    mask = _mask(static, arrays.where, i, j)
    return scores if mask is None else jnp.where(mask[:, None, None], scores, -jnp.inf), raw


def _seen(arrays: _Arrays, chunk: Array, j) -> Array:
    """Keys or values with zeros for those that nothing sees: a probability of 0 times NaN would be NaN."""
    if arrays.where.key_seen is None:
        return chunk
    return jnp.where(_at(arrays.where.key_seen, j)[:, None, :, None], chunk, 0)


def _mask(static: _Static, where: Places, i, j) -> Bool[Array, "#batch query key"] | None:
    here = Places(*(None if x is None else _at(x, at) for x, at in zip(where, (i, j) * 3, strict=True)))
    mask = attention_mask(here, causal=static.causal, window=static.window)
    chunks = static.chunks
    if chunks.key_chunks * chunks.key_chunk > static.keys:  # the last chunk is filled up
        real = (j * chunks.key_chunk + jnp.arange(chunks.key_chunk) < static.keys)[None, None]
        mask = real if mask is None else mask & real
    return mask


def _keep(static: _Static, arrays: _Arrays, i, j, shape: tuple[int, ...]) -> Array | None:
    """Which probabilities dropout leaves; drawn again in the backward pass."""
    key = arrays.dropout_key
    if key is None:
        return None
    chunks = static.chunks
    if chunks.query_chunks * chunks.key_chunks > 1:
        key = jax.random.fold_in(key, i * chunks.key_chunks + j)
    return jax.random.bernoulli(key, 1 - static.dropout_rate, shape)


def _accumulator(x: Array):
    return jnp.promote_types(x.dtype, jnp.float32)


def _at(tree, index):
    """One chunk; an index that is known makes a slice that costs nothing."""
    if isinstance(index, int):
        return jax.tree.map(lambda x: x[index], tree)
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), tree)


def _put(tree, chunk, index):
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, index, 0), tree, chunk)
