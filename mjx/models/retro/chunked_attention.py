"""Chunked cross-attention: tokens look at what was retrieved for the chunk in front of them (Borgeaud et al.
2022, section 2.4)."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.common.attention.attend import attend
from mjx.models.common.attention.cache import MemoryCache
from mjx.models.common.attention.cross_attention import CrossAttention, CrossAttentionConfig
from mjx.models.common.context import Context, Decoding
from mjx.models.common.pattern import Lengths, Mixed
from mjx.sharding import relayout, shard


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChunkedAttentionConfig(CrossAttentionConfig):
    """Heads and softmax, and how long a chunk is. The memory of a row is that of its chunks, one after the
    other, each with as many tokens."""

    name: ClassVar[str] = "chunked_attention"

    chunk_length: int
    """Tokens for which neighbours are retrieved together."""

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> "ChunkedAttention":
        return ChunkedAttention(self, embed, std=std, output_std=output_std, rngs=rngs)

    def flops_per_token(self, embed: int, lengths: Lengths) -> float:
        """A token looks at the memory of one chunk."""
        chunks = chunks_of(lengths.sequence, self.chunk_length)
        all_of_it = super().flops_per_token(embed, lengths)
        looks = 4 * self.num_heads * self.head_dim * lengths.memory
        return all_of_it - looks + looks / chunks


class ChunkedAttention(CrossAttention):
    """From the last token of a chunk on, until the next one's, tokens look at what belongs to the chunk."""

    config: ChunkedAttentionConfig

    def __call__(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        cache: MemoryCache | None = None,
    ) -> Mixed:
        if context.memory is None:  # nothing is retrieved: the plain language model
            return Mixed(jnp.zeros_like(x), cache)
        x = relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        q = self.query(x)
        q = q if self.query_norm is None else self.query_norm(q)
        k, v = self._project(context.memory, x.dtype)
        assert context.memory.segment_ids is not None
        if context.decoding is not None and cache is not None:
            found = k, v, context.memory.segment_ids
            y, cache = self._behind_caches(q, found, context.decoding, cache)
        else:
            y = self._of_whole_rows(q, k, v, context.memory.segment_ids, context.dropout_key)
        return Mixed(shard(y, "batch", "residual_sequence", "embed"), cache)

    def _of_whole_rows(
        self, q: Array, k: Array, v: Array, ids: Int[Array, "batch memory"], key: Key[Array, ""] | None
    ) -> Float[Array, "batch sequence embed"]:
        """Each chunk, from its last token on, is a row of attention."""
        length, (batch, sequence) = self.config.chunk_length, q.shape[:2]
        chunks = chunks_of(sequence, length)
        first = (sequence - 1) % length  # tokens in front of the last one of the first chunk
        q = jnp.pad(q[:, first:], ((0, 0), (0, length - 1), (0, 0), (0, 0)))

        def apart(array: Array) -> Array:
            """[batch, chunks · tokens, …] → [batch · chunks, tokens, …]"""
            return array.reshape(batch * chunks, array.shape[1] // chunks, *array.shape[2:])

        q, k, v = (
            shard(apart(array), "batch", None, name, "head_dim")
            for array, name in ((q, "heads"), (k, "kv_heads"), (v, "kv_heads"))
        )
        seen = jnp.minimum(apart(ids), 1)
        out = attend(
            q,
            k,
            v,
            self.config.scores,
            query_segment_ids=jnp.ones(q.shape[:2], jnp.int32),
            key_segment_ids=seen,
            dropout_key=key,
        )
        out = out.reshape(batch, chunks * length, *out.shape[2:])[:, : sequence - first]
        y = self.output(shard(out, "batch", "sequence", "heads", "head_dim"))
        return jnp.pad(y, ((0, 0), (first, 0), (0, 0)))

    def _behind_caches(
        self, q: Array, found: tuple[Array, Array, Array], decoding: Decoding, cache: MemoryCache
    ) -> tuple[Float[Array, "batch new embed"], MemoryCache]:
        """Of tokens that follow: the cache has the memory of the last whole chunk in front of them, `found`
        those of the chunks from there on, of which these tokens may end some."""
        length, (batch, new) = self.config.chunk_length, q.shape[:2]
        of_chunk = cache.key.shape[1]
        before = decoding.offset // length
        at = decoding.offset[:, None] + jnp.arange(new)
        looks = (at + 1) // length - before[:, None]  # 0: at the cached one
        k, v, ids = (
            jnp.concatenate([one, other.astype(one.dtype)], axis=1)
            for one, other in zip((cache.key, cache.value, cache.segment_ids), found, strict=True)
        )
        chunk = jnp.arange(k.shape[1]) // of_chunk
        out = attend(
            q,
            k.astype(q.dtype),
            v.astype(q.dtype),
            self.config.scores,
            query_segment_ids=looks + 1,
            key_segment_ids=jnp.where(ids > 0, chunk + 1, 0),
        )
        y = self.output(shard(out, "batch", "sequence", "heads", "head_dim"))
        y = jnp.where((at + 1 >= length)[..., None], y, 0)
        last = (decoding.offset + decoding.lengths) // length - before
        places = last[:, None] * of_chunk + jnp.arange(of_chunk)

        def kept(array: Array) -> Array:
            return jnp.take_along_axis(array, places.reshape(batch, -1, *(1,) * (array.ndim - 2)), axis=1)

        return y, MemoryCache(kept(k), kept(v), kept(ids))


def chunks_of(sequence: int, length: int) -> int:
    """Of a row of so many tokens; where they do not divide, the first one is shorter."""
    return -(-sequence // length)


def chunked(
    x: Float[Array, "batch sequence embed"], length: int
) -> Float[Array, "chunks_of_batch length embed"]:
    """Each chunk a row; a first one that is shorter has zeros behind it."""
    _, sequence, embed = x.shape
    short = sequence % length
    if short:
        begin = jnp.pad(x[:, :short], ((0, 0), (0, length - short), (0, 0)))
        x = jnp.concatenate([begin, x[:, short:]], axis=1)
    return x.reshape(-1, length, embed)


def segments_of(retrieved: Int[Array, "..."]) -> Int[Array, "..."]:
    """1 for tokens; 0 for -1, which stands where nothing was retrieved."""
    return (retrieved >= 0).astype(jnp.int32)
