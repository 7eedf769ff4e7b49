"""The self-attention sub-layer: multi-head, grouped-query and multi-query."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models import backends
from mjx.models.common.attention.attend import Scores, attend
from mjx.models.common.attention.cache import KVCache
from mjx.models.common.attention.relative_bias import RelativeBiasConfig, RelativeTable
from mjx.models.common.context import Context, Shared
from mjx.models.common.dropout import check_rate
from mjx.models.common.linear import Linear, project
from mjx.models.common.norm import Norm, NormConfig
from mjx.models.common.parameter import parameter
from mjx.models.common.pattern import CacheSizes, Lengths, Mixed, MixerConfig, StepOnMesh, Work
from mjx.models.common.rope import RoPEConfig, Rotary, rotary_tables, rotate
from mjx.models.common.share import Share
from mjx.sharding import mesh_shape, relayout, shard
from mjx.words import divisors, one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig(MixerConfig):
    """Heads, positions and softmax of one attention sub-layer."""

    name: ClassVar[str] = "attention"

    num_heads: int
    """Query heads."""
    num_query_groups: int | None = None
    """Key/value heads, each shared by a group of query heads; default num_heads, 1 is multi-query."""
    head_dim: int | None = None
    """Features of a head; default hidden_size / num_heads."""
    qkv_bias: bool = False
    """Add biases to queries, keys and values (and to the output gate)."""
    output_bias: bool = False
    """Add a bias to the projection back into the residual stream."""
    qk_norm: NormConfig | None = None
    """Normalise queries and keys before rotation."""
    qk_norm_over: Literal["head", "all_heads"] = "head"
    """head: each head's features on their own, with one gain for all. all_heads: the features of all query
    heads together, and those of all key heads (OLMo 2)."""
    rope: RoPEConfig | None = None
    """Rotate queries and keys by their positions; null: attention knows no positions."""
    causal: bool = True
    """A token sees itself and what stands before it; false: the whole row, or its document."""
    window: int | None = None
    """Sliding window: a token sees itself and the window - 1 tokens before it."""
    windowed: bool = False
    """A token sees its part of the document alone, where the model says its parts (`Context.window_ids`)."""
    soft_cap: float | None = None
    """Bound scores s to cap · tanh(s / cap) (Gemma 2)."""
    softmax: Literal["vanilla", "off-by-one", "learnable"] = "vanilla"
    """off-by-one adds exp(0) to the softmax's sum; learnable adds exp(sink), one sink per head (gpt-oss)."""
    output_gate: bool = False
    """Multiply each head's output by the sigmoid of a further projection of the input."""
    scale: float | None = None
    """Factor on the scores; default 1/√head_dim."""
    relative_bias: RelativeBiasConfig | None = None
    """Add a learned bias to the scores, by head and distance, of one table for all layers of the stack."""
    dropout: float = 0.0
    """On the attention probabilities."""
    implementation: backends.Implementation = "auto"
    """Which implementation computes it (`mjx backends`)."""

    def __post_init__(self):
        groups = self.num_query_groups
        if self.num_heads < 1:
            raise InputError(f"attention.num_heads = {self.num_heads} must be positive")
        if groups is not None and (groups < 1 or self.num_heads % groups):
            raise InputError(
                f"attention.num_query_groups = {groups} does not divide num_heads = {self.num_heads} "
                f"(choose {one_of(divisors(self.num_heads))})"
            )
        for name in ("head_dim", "window", "soft_cap", "scale"):
            value = getattr(self, name)
            if value is not None:
                check_scale(f"attention.{name}", value, ", or null for the default")
        if self.qk_norm_over == "all_heads" and self.qk_norm is None:
            raise InputError("attention.qk_norm_over = all_heads needs attention.qk_norm, which is null")
        check_rate("attention.dropout", self.dropout)
        if self.rope is not None and self.head_dim is not None:
            self.rope.check(self.head_dim)
        if self.relative_table is not None and self.relative_table.refusal is not None:
            raise InputError(f"attention.relative_bias has {self.relative_table.refusal}")

    def resolve(self, hidden_size: int) -> "AttentionConfig":
        """With every default that depends on the model's width filled in."""
        head_dim = self.head_dim
        if head_dim is None:
            if hidden_size % self.num_heads:
                raise InputError(
                    f"attention.num_heads = {self.num_heads} does not divide hidden_size = {hidden_size}; "
                    "choose a divisor, or say attention.head_dim"
                )
            head_dim = hidden_size // self.num_heads
        return dataclasses.replace(
            self, head_dim=head_dim, num_query_groups=self.num_query_groups or self.num_heads
        )

    @property
    def dims(self) -> tuple[int, int, int]:
        """(heads, kv_heads, head_dim) of a resolved config."""
        if self.num_query_groups is None or self.head_dim is None:
            raise InputError("attention.head_dim is not known yet: call resolve(hidden_size) first")
        return self.num_heads, self.num_query_groups, self.head_dim

    @property
    def scores(self) -> Scores:
        """How `attend` computes."""
        return Scores(
            scale=self.scale,
            causal=self.causal,
            window=self.window,
            soft_cap=self.soft_cap,
            relative_buckets=None if self.relative_table is None else self.relative_table.buckets,
            dropout=self.dropout,
            implementation=self.implementation,
        )

    @property
    def normed_features(self) -> tuple[dict[str, int], dict[str, int]]:
        """What `qk_norm` normalises over, of queries and of keys: axis name → size."""
        heads, kv_heads, head_dim = self.dims
        each = {"head_dim": head_dim}
        if self.qk_norm_over == "head":
            return each, each
        return {"heads": heads} | each, {"kv_heads": kv_heads} | each

    @property
    def relative_table(self) -> RelativeTable | None:
        """What the layers of a stack share of `relative_bias`."""
        bias = self.relative_bias
        return None if bias is None else RelativeTable(bias, self.num_heads, two_sided=not self.causal)

    @property
    def shared(self) -> tuple[Shared, ...]:
        rotary = () if self.rope is None else (Rotary(self.rope, self.dims[2]),)
        return rotary if self.relative_table is None else (*rotary, self.relative_table)

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> "Attention":
        return Attention(self, embed, std=std, output_std=output_std, rngs=rngs)

    def init_cache(self, sizes: CacheSizes, dtype: DTypeLike) -> KVCache:
        _, kv_heads, head_dim = self.dims
        zeros = jnp.zeros((sizes.batch, sizes.slots, kv_heads, head_dim), dtype)
        return KVCache(zeros, zeros)

    def flops_per_token(self, embed: int, lengths: Lengths) -> float:
        """A causal query sees half of the sequence, or its window."""
        (heads, kv_heads, head_dim), sequence = self.dims, lengths.sequence
        projections = 2 * embed * head_dim * (heads * (3 if self.output_gate else 2) + 2 * kv_heads)
        seen = sequence / 2 if self.causal else sequence
        if self.window is not None and self.window < sequence:
            window = self.window
            seen = window * (1 - window / (2 * sequence)) if self.causal else min(2 * window, sequence)
        return projections + 4 * heads * head_dim * seen

    def work(self, embed: int, step: StepOnMesh) -> Work:
        """Where rows are split, keys and values of whole rows, gathered, and their gradients."""
        _, kv_heads, head_dim = self.dims
        of_device = Share(step)
        rows, own = step.rows / of_device.rows, kv_heads / of_device.over("kv_heads", kv_heads)
        gives = rows * step.sequence / of_device.tokens * 2 * own * head_dim
        exchanges = of_device.gathered("keys", gives * step.itemsize)
        whole = gives * of_device.tokens if exchanges else 0.0
        return Work(exchanges, kept=whole, between=2 * whole)


class Attention(nnx.Module):
    """Queries, keys and values from the residual stream, attention, and back."""

    def __init__(
        self,
        config: AttentionConfig,
        embed: int,
        *,
        reads: Mapping[str, int] | None = None,
        std: float,
        output_std: float,
        rngs: nnx.Rngs,
    ):
        """`reads` are the axes of what queries, keys and values are made of; None: the stream's."""
        heads, kv_heads, head_dim = config.dims
        narrow = reads or {"embed": embed}
        queries = {"heads": heads, "head_dim": head_dim}
        keys = {"kv_heads": kv_heads, "head_dim": head_dim}
        self.query = Linear(narrow, queries, bias=config.qkv_bias, std=std, rngs=rngs)
        self.key = Linear(narrow, keys, bias=config.qkv_bias, std=std, rngs=rngs)
        self.value = Linear(narrow, keys, bias=config.qkv_bias, std=std, rngs=rngs)
        self.gate = (
            Linear(narrow, queries, bias=config.qkv_bias, std=std, rngs=rngs) if config.output_gate else None
        )
        norm, (of_queries, of_keys) = config.qk_norm, config.normed_features
        self.query_norm = Norm(norm, of_queries) if norm else None
        self.key_norm = Norm(norm, of_keys) if norm else None
        learnable = config.softmax == "learnable"
        self.sinks = parameter(jnp.zeros((heads,), jnp.float32), "heads") if learnable else None
        self.output = Linear(queries, {"embed": embed}, bias=config.output_bias, std=output_std, rngs=rngs)
        self.config = config

    def __call__(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        cache: KVCache | None = None,
    ) -> Mixed:
        x = relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        return self.attended(*self.project(x, joined=context.decoding is None), context, cache)

    def attended(
        self,
        q: Float[Array, "batch sequence heads head_dim"],
        k: Float[Array, "batch sequence kv_heads head_dim"],
        v: Float[Array, "batch sequence kv_heads head_dim"],
        gate: Float[Array, "batch sequence heads head_dim"] | None,
        context: Context,
        cache: KVCache | None,
    ) -> Mixed:
        """What `project` made, normed, rotated, attended to, and back."""
        config, decoding, table = self.config, context.decoding, self.config.relative_table
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        rope, unrotated = config.rope, k
        if rope is not None:
            cos, sin = context.table(Rotary(rope, q.shape[-1]))
            q, k = rotate(q, cos, sin, rope.layout), rotate(k, cos, sin, rope.layout)
        q = shard(q, "batch", "sequence", "heads", "head_dim")
        k = shard(k, "batch", "sequence", "kv_heads", "head_dim")
        v = shard(v, "batch", "sequence", "kv_heads", "head_dim")
        offset = 0
        if cache is not None and decoding is not None:
            # Where a row's length decides how it is rotated, so it does again when the row has grown.
            late = rope is not None and rope.varies
            cache = cache.append(unrotated if late else k, v, decoding.offset)
            if not decoding.prompt:
                k, v, offset = cache.key.astype(k.dtype), cache.value.astype(v.dtype), decoding.offset
                if rope is not None and late:
                    places = jnp.arange(k.shape[1])[None]
                    cos, sin = rotary_tables(rope, k.shape[-1], places, last=decoding.last)
                    k = rotate(k, cos, sin, rope.layout)
        segments = context.window_ids if config.windowed else context.segment_ids
        out = attend(
            q,
            k,
            v,
            config.scores,
            query_segment_ids=segments,
            key_segment_ids=segments,
            query_offset=offset,
            sinks=self._sinks(),
            relative_bias=None if table is None else context.table(table),
            dropout_key=context.dropout_key,
        )
        if gate is not None:
            out = out * jax.nn.sigmoid(gate)
        out = shard(out, "batch", "sequence", "heads", "head_dim")
        return Mixed(shard(self.output(out), "batch", "residual_sequence", "embed"), cache)

    def project(self, x: Array, *, joined: bool) -> tuple[Array, Array, Array, Array | None]:
        """Queries, keys, values and gates as one product: one GEMM, one collective for the gradient of `x`.

        The kernels are joined per key/value head, `[q … q, (gate … gate), k, v]`, as Megatron stores
        them, along an axis that no mesh axis splits. Where key/value heads are replicated (fewer than
        the tensor degree), queries are split differently from keys, and each has its own product; so it
        has without a gradient (decoding, and its prompt): joining would cost as much as the product.
        """
        heads, kv_heads, head_dim = self.config.dims
        wide = [self.query] if self.gate is None else [self.query, self.gate]
        if kv_heads % mesh_shape().get("tensor", 1) or not joined:
            q, *gates = [linear(x) for linear in wide]
            return q, self.key(x), self.value(x), gates[0] if gates else None
        group = heads // kv_heads
        sizes = [group] * len(wide) + [1, 1]
        parts = [*wide, self.key, self.value]

        def join(arrays: list[Array]) -> Array:
            shaped = [
                a.reshape(*a.shape[:-2], kv_heads, size, head_dim)
                for a, size in zip(arrays, sizes, strict=True)
            ]
            return jnp.concatenate(shaped, axis=-2).astype(x.dtype)

        y = project(x, join([p.kernel[...] for p in parts]), self.query.contracted)
        if self.query.bias is not None:
            y = y + join([p.bias[...] for p in parts if p.bias is not None])
        bounds = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        *q_and_gate, k, v = [a.reshape(*a.shape[:2], -1, head_dim) for a in jnp.split(y, bounds, axis=-2)]
        return q_and_gate[0], k, v, q_and_gate[1] if len(q_and_gate) > 1 else None

    def _sinks(self) -> Float[Array, " heads"] | None:
        if self.config.softmax == "off-by-one":
            return jnp.zeros((self.config.num_heads,), jnp.float32)
        return None if self.sinks is None else self.sinks[...]
