"""The cross-attention sub-layer: tokens look at a second stream (Vaswani et al. 2017, section 3.2.3)."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int

from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models import backends
from mjx.models.common.attention.attend import Scores, attend
from mjx.models.common.attention.cache import MemoryCache
from mjx.models.common.context import Context, Memory
from mjx.models.common.dropout import check_rate
from mjx.models.common.linear import Linear
from mjx.models.common.norm import Norm, NormConfig
from mjx.models.common.pattern import (
    CacheSizes,
    Exchange,
    Lengths,
    Mixed,
    MixerConfig,
    StepOnMesh,
    Work,
    exchanging,
)
from mjx.models.common.share import Share
from mjx.sharding import current_rules, mesh_shape, relayout, shard


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossAttentionConfig(MixerConfig):
    """Heads and softmax of one cross-attention sub-layer; it knows no positions and sees all memory."""

    name: ClassVar[str] = "cross_attention"

    num_heads: int
    """Query heads."""
    num_query_groups: int | None = None
    """Key/value heads, each shared by a group of query heads; default num_heads."""
    head_dim: int
    """Features of a head."""
    memory_size: int
    """Features of the memory's states."""
    bias: bool = False
    """Add biases to queries, keys and values."""
    output_bias: bool = False
    """Add a bias to the projection back into the residual stream."""
    qk_norm: NormConfig | None = None
    """Normalise queries and keys, each head's features on their own."""
    scale: float | None = None
    """Factor on the scores; default 1/√head_dim."""
    dropout: float = 0.0
    """On the attention probabilities."""
    implementation: backends.Implementation = "auto"
    """Which implementation computes it (`mjx backends`)."""

    def __post_init__(self):
        for name in ("num_heads", "head_dim", "memory_size"):
            if getattr(self, name) < 1:
                raise InputError(f"cross_attention.{name} = {getattr(self, name)} must be positive")
        if self.kv_heads < 1 or self.num_heads % self.kv_heads:
            raise InputError(
                f"cross_attention.num_query_groups = {self.num_query_groups} does not divide num_heads = "
                f"{self.num_heads}"
            )
        if self.scale is not None:
            check_scale("cross_attention.scale", self.scale, ", or null for the default")
        check_rate("cross_attention.dropout", self.dropout)

    @property
    def scores(self) -> Scores:
        """How `attend` computes."""
        return Scores(
            scale=self.scale, causal=False, dropout=self.dropout, implementation=self.implementation
        )

    @property
    def kv_heads(self) -> int:
        """Key/value heads."""
        return self.num_heads if self.num_query_groups is None else self.num_query_groups

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> "CrossAttention":
        return CrossAttention(self, embed, std=std, output_std=output_std, rngs=rngs)

    def init_cache(self, sizes: CacheSizes, dtype: DTypeLike) -> MemoryCache:
        zeros = jnp.zeros((sizes.batch, sizes.memory, self.kv_heads, self.head_dim), dtype)
        return MemoryCache(zeros, zeros, jnp.zeros((sizes.batch, sizes.memory), jnp.int32))

    def flops_per_token(self, embed: int, lengths: Lengths) -> float:
        """Keys and values are made of the memory once, for all tokens of the row."""
        queries = 4 * embed * self.num_heads * self.head_dim
        of_memory = 4 * self.memory_size * self.kv_heads * self.head_dim * lengths.memory / lengths.sequence
        return queries + of_memory + 4 * self.num_heads * self.head_dim * lengths.memory

    def work(self, embed: int, step: StepOnMesh) -> Work:
        """The memory, which every layer gathers over `tensor` (its gradient is scattered), and the keys and
        values that it makes of it, gathered where rows are split."""
        of_device = Share(step)
        tokens = step.rows / of_device.rows * step.memory / of_device.tokens
        features = 2 * self.kv_heads / of_device.over("kv_heads", self.kv_heads) * self.head_dim
        exchanges = of_device.gathered("keys", tokens * features * step.itemsize)
        whole = tokens * features * (of_device.tokens if exchanges else 0)
        tensor = step.sizes.get("tensor", 1)
        if tensor > 1:
            sent = (tensor - 1) / tensor * tokens * self.memory_size * step.itemsize
            exchanges = (*exchanges, Exchange("memory", ("tensor",), sent, sent, sent))
        return Work(exchanges, tokens * features + whole, 2 * tokens * features + 2 * whole)


class CrossAttention(nnx.Module):
    """Queries from the residual stream, keys and values from the memory, attention, and back."""

    def __init__(
        self, config: CrossAttentionConfig, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs
    ):
        narrow, memory = {"embed": embed}, {"embed": config.memory_size}
        queries = {"heads": config.num_heads, "head_dim": config.head_dim}
        keys = {"kv_heads": config.kv_heads, "head_dim": config.head_dim}
        self.query = Linear(narrow, queries, bias=config.bias, std=std, rngs=rngs)
        self.key = Linear(memory, keys, bias=config.bias, std=std, rngs=rngs)
        self.value = Linear(memory, keys, bias=config.bias, std=std, rngs=rngs)
        each = {"head_dim": config.head_dim}
        self.query_norm = Norm(config.qk_norm, each) if config.qk_norm else None
        self.key_norm = Norm(config.qk_norm, each) if config.qk_norm else None
        self.output = Linear(queries, narrow, bias=config.output_bias, std=output_std, rngs=rngs)
        self.config = config

    def __call__(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        cache: MemoryCache | None = None,
    ) -> Mixed:
        x = relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        q = self.query(x)
        q = q if self.query_norm is None else self.query_norm(q)
        q = shard(q, "batch", "sequence", "heads", "head_dim")
        k, v, of_keys, cache = self._memory(context, cache, x)
        of_queries = context.segment_ids
        if of_keys is not None and of_queries is None:
            of_keys = jnp.minimum(of_keys, 1)
            of_queries = jnp.ones(x.shape[:2], jnp.int32)
        elif of_keys is None:
            of_queries = None
        out = attend(
            q,
            k,
            v,
            self.config.scores,
            query_segment_ids=of_queries,
            key_segment_ids=of_keys,
            dropout_key=context.dropout_key,
        )
        out = shard(out, "batch", "sequence", "heads", "head_dim")
        return Mixed(shard(self.output(out), "batch", "residual_sequence", "embed"), cache)

    def _memory(
        self, context: Context, cache: MemoryCache | None, x: Array
    ) -> tuple[Array, Array, Int[Array, "batch memory"] | None, MemoryCache | None]:
        """Keys, values and segment ids of the memory, and the cache, which holds them from the prompt on."""
        decoding = context.decoding
        if cache is not None and decoding is not None and not decoding.prompt:
            return cache.key.astype(x.dtype), cache.value.astype(x.dtype), cache.segment_ids, cache
        memory = context.memory
        if memory is None:
            raise ValueError("cross-attention looks at a memory, but the context has none (Context.memory)")
        k, v, segment_ids = *self._project(memory, x.dtype), memory.segment_ids
        if cache is not None:
            ids = jnp.ones(k.shape[:2], jnp.int32) if segment_ids is None else segment_ids
            cache = MemoryCache(k.astype(cache.key.dtype), v.astype(cache.value.dtype), ids)
        return k, v, segment_ids, cache

    @exchanging("memory")
    def _gathered(self, states: Array) -> Float[Array, "batch memory embed"]:
        """All tokens that a device makes keys and values of; an encoder leaves it a share of them."""
        whole = ("batch", "sequence", "embed")
        shares = current_rules().mesh_axes("residual_sequence")
        if states.shape[1] % math.prod(mesh_shape().get(axis, 1) for axis in shares):
            return shard(states, *whole)  # no encoder's of ours: it would not lie in such shares
        return relayout(states, ("batch", "residual_sequence", "embed"), whole)

    def _project(self, memory: Memory, dtype: DTypeLike) -> tuple[Array, Array]:
        states = self._gathered(memory.states.astype(dtype))
        k, v = self.key(states), self.value(states)
        k = k if self.key_norm is None else self.key_norm(k)
        k = shard(k, "batch", "sequence", "kv_heads", "head_dim")
        return k, shard(v, "batch", "sequence", "kv_heads", "head_dim")
