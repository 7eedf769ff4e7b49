"""A block of attention and an MLP whose weights many places share, each with adapters of its own (Zamba2)."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from mjx.errors import InputError
from mjx.models.common.attention import Attention, AttentionConfig
from mjx.models.common.attention.cache import KVCache
from mjx.models.common.context import Context, Shared
from mjx.models.common.linear import Linear
from mjx.models.common.mlp import MLP, MLPConfig
from mjx.models.common.norm import Norm, NormConfig
from mjx.models.common.pattern import CacheSizes, Lengths, Mixed, MixerConfig, StepOnMesh, Work
from mjx.models.common.share import Share
from mjx.sharding import relayout, shard

_STREAMS = 2
"""The residual stream, and the embeddings that it began with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedBlockConfig:
    """Attention and an MLP that are there once for all of their places (Glorioso et al. 2024)."""

    attention: AttentionConfig
    """Reads the residual stream beside the embeddings that it began with: head_dim is by default their
    features together over num_heads."""
    mlp: MLPConfig
    """Reads what attention writes, behind a norm."""
    blocks: int = 1
    """So many are taken by turns."""
    rank: int = 128
    """Features within an adapter: each place adds to the MLP's hidden features what its own two small maps
    make (Hu et al. 2021)."""
    attention_adapters: bool = False
    """Add such maps to queries, keys and values too."""

    def __post_init__(self):
        for name in ("blocks", "rank"):
            if getattr(self, name) < 1:
                raise InputError(f"shared_block.{name} = {getattr(self, name)} must be positive")
        if not self.mlp.gated:
            raise InputError("shared_block.mlp.gated = false: its adapters are those of a gated MLP")
        if self.attention.output_gate:
            raise InputError("shared_block.attention.output_gate = true has no adapters; leave it false")

    def resolve(self, hidden_size: int) -> "SharedBlockConfig":
        """With every default that depends on the model's width filled in."""
        return dataclasses.replace(self, attention=self.attention.resolve(_STREAMS * hidden_size))


@dataclasses.dataclass(frozen=True)
class Weights:
    """One of the blocks, made once by the stack: `decoder.shared.block_0`."""

    block: SharedBlockConfig
    norm: NormConfig
    number: int

    @property
    def name(self) -> str:
        return f"block_{self.number}"

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> "Block":
        return Block(self.block, self.norm, embed, std=std, output_std=output_std, rngs=rngs)

    def make(self, module: "Block", context: Context) -> "Block":
        return module


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedPlaceConfig(MixerConfig):
    """A place of one of the blocks, which are as many as the pattern asks for."""

    name: ClassVar[str] = "shared_block"

    block: SharedBlockConfig
    """Resolved."""
    norm: NormConfig
    """Of what attention and the MLP read."""
    number: int
    """Which of the blocks."""

    @property
    def weights(self) -> Weights:
        """Those that the place shares with others."""
        return Weights(self.block, self.norm, self.number)

    @property
    def attention(self) -> AttentionConfig:
        """The block's."""
        return self.block.attention

    @property
    def shared(self) -> tuple[Shared, ...]:
        return (*self.attention.shared, self.weights)

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> "SharedPlace":
        return SharedPlace(self, embed, std=std, output_std=output_std, rngs=rngs)

    def init_cache(self, sizes: CacheSizes, dtype: DTypeLike) -> KVCache:
        return self.attention.init_cache(sizes, dtype)

    def flops_per_token(self, embed: int, lengths: Lengths) -> float:
        """The block's, the place's adapters', and those of the map out of it."""
        (heads, kv_heads, head_dim), rank = self.attention.dims, self.block.rank
        wide = _STREAMS * embed
        # Attention's own form has projections from and to one width; back it writes the stream's.
        attention = self.attention.flops_per_token(wide, lengths) - 2 * (wide - embed) * heads * head_dim
        adapters = 2 * rank * (embed + 2 * self.block.mlp.features)
        if self.block.attention_adapters:
            adapters += 2 * rank * (3 * wide + (heads + 2 * kv_heads) * head_dim)
        return attention + self.block.mlp.flops_per_token(embed, lengths) + adapters + 2 * embed**2

    def work(self, embed: int, step: StepOnMesh) -> Work:
        """Attention's, and what the shared weights make of a token, which are not the place's own."""
        attention, of_device = self.attention.work(embed, step), Share(step)
        heads, kv_heads, head_dim = self.attention.dims
        tokens = step.rows / of_device.rows * (step.sequence // of_device.tokens)
        made = 2 * heads / of_device.over("heads", heads) * head_dim
        made += 2 * kv_heads / of_device.over("kv_heads", kv_heads) * head_dim
        made += 3 * self.block.mlp.features / of_device.over("mlp", self.block.mlp.features)
        made += 2 * _STREAMS * embed + 2 * embed  # what stands in front of and behind both norms
        kept, between = attention.kept + tokens * made, attention.between + 2 * tokens * made
        return attention._replace(kept=kept, between=between)


class Block(nnx.Module):
    """The weights of one block."""

    def __init__(
        self,
        block: SharedBlockConfig,
        norm: NormConfig,
        embed: int,
        *,
        std: float,
        output_std: float,
        rngs: nnx.Rngs,
    ):
        reads = {"streams": _STREAMS, "embed": embed}
        self.norm = Norm(norm, reads)
        self.attention = Attention(
            block.attention, embed, reads=reads, std=std, output_std=output_std, rngs=rngs
        )
        self.mlp_norm = Norm(norm, {"embed": embed})
        self.mlp = MLP(block.mlp, embed, std=std, output_std=output_std, rngs=rngs)


class Adapter(nnx.Module):
    """Into a few features, and out of them to one or several others (LoRA, Hu et al. 2021)."""

    def __init__(
        self, inputs: dict[str, int], rank: int, outputs: dict[str, dict[str, int]], *, std: float, rngs: Any
    ):
        few = {"latent": rank}
        self.into = Linear(inputs, few, std=std, rngs=rngs)
        self.out = nnx.Dict({name: Linear(few, axes, std=std, rngs=rngs) for name, axes in outputs.items()})

    def __call__(self, x: Float[Array, "batch sequence ..."]) -> dict[str, Float[Array, "..."]]:
        few = shard(self.into(x), "batch", "sequence", "latent")
        return {name: linear(few) for name, linear in self.out.items()}


class SharedPlace(nnx.Module):
    """`out(block([x, embeddings]))` with the place's adapters in the block."""

    def __init__(
        self, config: SharedPlaceConfig, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs
    ):
        heads, kv_heads, head_dim = config.attention.dims
        block, wide = config.block, {"mlp": config.block.mlp.features}
        narrow = {"embed": embed}
        self.mlp_adapter = Adapter(narrow, block.rank, {"gate": wide, "up": wide}, std=std, rngs=rngs)
        if block.attention_adapters:
            reads = {"streams": _STREAMS, **narrow}
            keys = {"kv_heads": kv_heads, "head_dim": head_dim}
            made = {"query": {"heads": heads, "head_dim": head_dim}, "key": keys, "value": keys}
            self.attention_adapters = nnx.Dict(
                {
                    name: Adapter(reads, block.rank, {name: axes}, std=std, rngs=rngs)
                    for name, axes in made.items()
                }
            )
        self.out = Linear({"latent": embed}, narrow, std=output_std, rngs=rngs)
        self.config = config

    def __call__(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        cache: KVCache | None = None,
    ) -> Mixed:
        if context.entered is None:
            raise ValueError("a shared block reads the embeddings of the tokens (Context.entered)")
        block: Block = context.table(self.config.weights)
        joined = context.decoding is None
        names = ("batch", "residual_sequence", "streams", "embed")
        read: Array = block.norm(shard(jnp.stack([x, context.entered], axis=-2), *names))
        read = relayout(read, names, ("batch", "sequence", "streams", "embed"))
        q, k, v, gate = block.attention.project(read, joined=joined)
        if self.config.block.attention_adapters:
            added = {name: one(read)[name] for name, one in self.attention_adapters.items()}
            q, k, v = q + added["query"], k + added["key"], v + added["value"]
        mixed = block.attention.attended(q, k, v, gate, context, cache)
        read = block.mlp_norm(mixed.y)
        read = relayout(read, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        gate, up = block.mlp.project(read, joined=joined)
        added = self.mlp_adapter(read)
        y = block.mlp.written(None if gate is None else gate + added["gate"], up + added["up"]).y
        return mixed._replace(y=shard(self.out(y), "batch", "residual_sequence", "embed"))
