"""RETRO: a language model that looks at texts which are like its own (Borgeaud et al. 2022)."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable
from typing import ClassVar

from flax import nnx

from mjx.batch import BatchArrays, check_arrays
from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.attention.cross_attention import CrossAttentionConfig
from mjx.models.common.dropout import check_rate
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import Lengths, MixerConfig, ResidualConfig, SublayerConfig
from mjx.models.common.token_model.language_model import LanguageModelConfig
from mjx.models.retro.chunked_attention import ChunkedAttentionConfig, chunks_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetroConfig(LanguageModelConfig):
    """A decoder of attention and MLPs, some of whose layers look at neighbours of the text's chunks, which a
    small encoder has read.

    The defaults are Megatron's.
    """

    family: ClassVar[str] = "retro"
    training_choices: ClassVar[tuple[str, ...]] = (
        *LanguageModelConfig.training_choices,
        *("attention.dropout", "attention.implementation", "encoder_dropout", "encoder_attention_dropout"),
    )

    num_layers: int
    """Of the decoder: attention, perhaps a look at neighbours, an MLP."""
    attention: AttentionConfig
    """Of every layer; the encoder's is to both sides, and knows no rotation."""
    mlp: MLPConfig
    """Of every layer."""
    norm: NormConfig = NormConfig()
    """In front of every sub-layer."""
    last_norm: bool = False
    """There is a norm in front of the head (Megatron's has none)."""
    chunk_length: int = 64
    """Tokens for which neighbours are retrieved together."""
    retrieved_length: int = 128
    """Tokens of a neighbour: a chunk, and what follows it."""
    neighbours: int = 2
    """Of each chunk."""
    first_look: int | None = None
    """The first layer, from 1, that looks at neighbours; null: 6 of up to 15 layers, else 9."""
    looks_every: int = 3
    """Every so many layers another one does."""
    encoder_layers: int = 2
    """Of the encoder, the first of which looks at the chunk that a neighbour was retrieved for."""
    encoder_dropout: float = 0.1
    """As dropout, of the encoder."""
    encoder_attention_dropout: float = 0.1
    """As attention.dropout, of the encoder."""

    def __post_init__(self):
        super().__post_init__()
        sizes = ("num_layers", "chunk_length", "retrieved_length", "neighbours", "looks_every")
        for name in (*sizes, "encoder_layers"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} = {getattr(self, name)} must be positive")
        if not self.looking:
            raise InputError(
                f"model.num_layers = {self.num_layers} has no layer that looks at neighbours: the first is "
                f"number {self._first_look}; set model.first_look"
            )
        if self.first_look is not None and self.first_look < 1:
            raise InputError(f"model.first_look = {self.first_look} must be positive, or null")
        for name in ("encoder_dropout", "encoder_attention_dropout"):
            check_rate(f"model.{name}", getattr(self, name))
        self.patterns  # noqa: B018  # their configs check themselves

    @property
    def _first_look(self) -> int:
        if self.first_look is not None:
            return self.first_look
        return 6 if self.num_layers <= 15 else 9

    @property
    def looking(self) -> tuple[int, ...]:
        """The layers that look at neighbours, from 1."""
        return tuple(range(self._first_look, self.num_layers + 1, self.looks_every))

    @property
    def final_norm(self) -> NormConfig | None:
        return self.norm if self.last_norm else None

    @property
    def cross_attention(self) -> CrossAttentionConfig:
        """With which the encoder looks at chunks."""
        return CrossAttentionConfig(**self._of_heads, dropout=self.encoder_attention_dropout)

    @property
    def chunked_attention(self) -> ChunkedAttentionConfig:
        """With which the decoder looks at neighbours."""
        return ChunkedAttentionConfig(
            **self._of_heads, dropout=self.attention.dropout, chunk_length=self.chunk_length
        )

    @property
    def _of_heads(self) -> dict:
        attention = self.attention.resolve(self.hidden_size)
        heads, kv_heads, head_dim = attention.dims
        return {
            "memory_size": self.hidden_size,
            "num_heads": heads,
            "num_query_groups": kv_heads,
            "head_dim": head_dim,
            "bias": attention.qkv_bias,
            "output_bias": attention.output_bias,
            "qk_norm": attention.qk_norm,
            "scale": attention.scale,
        }

    @functools.cached_property
    def layers(self) -> tuple[tuple[int, MixerConfig], ...]:
        """Every sub-layer of the decoder, with the number of its layer, from 0."""
        attention = dataclasses.replace(self.attention.resolve(self.hidden_size), causal=True)

        def mixers(layer: int) -> Iterable[MixerConfig]:
            looks = (self.chunked_attention,) if layer + 1 in self.looking else ()
            return (attention, *looks, self.mlp)

        return tuple((layer, mixer) for layer in range(self.num_layers) for mixer in mixers(layer))

    @property
    def sublayers_in_front(self) -> int:
        """Those that nothing retrieved is needed for: up to the attention of the first layer that looks."""
        return 2 * self.looking[0] - 1

    def sublayers(self) -> tuple[SublayerConfig, ...]:
        """From the first look on."""
        return self._of(self.layers[self.sublayers_in_front :])

    def sublayers_of_front(self) -> tuple[SublayerConfig, ...]:
        """Until there."""
        return self._of(self.layers[: self.sublayers_in_front])

    def _of(self, layers: tuple[tuple[int, MixerConfig], ...]) -> tuple[SublayerConfig, ...]:
        return tuple(SublayerConfig(mixer=mixer, norm=self.norm, dropout=self.dropout) for _, mixer in layers)

    def sublayers_of_encoder(self) -> tuple[SublayerConfig, ...]:
        """Attention, a look at the chunk, an MLP; attention, an MLP, …"""
        attention = dataclasses.replace(
            self.attention.resolve(self.hidden_size),
            causal=False,
            rope=None,
            dropout=self.encoder_attention_dropout,
        )
        others = itertools.repeat((attention, self.mlp), self.encoder_layers - 1)
        mixers = (attention, self.cross_attention, self.mlp, *itertools.chain.from_iterable(others))
        sublayer = functools.partial(SublayerConfig, norm=self.norm, dropout=self.encoder_dropout)
        # As Megatron's, a neighbour that has looked at its chunk goes on from behind the norm.
        looks = ResidualConfig(normed=True)
        return tuple(
            sublayer(mixer=mixer, residual=looks if mixer == self.cross_attention else ResidualConfig())
            for mixer in mixers
        )

    @functools.cached_property
    def patterns(self) -> dict[str, tuple[SublayerConfig, ...]]:
        return {
            "front": self.sublayers_of_front(),
            "encoder": self.sublayers_of_encoder(),
            self.stack_name: self.pattern,
        }

    @property
    def output_std(self) -> float:
        return self.init_std / math.sqrt(len(self.layers))

    @property
    def encoder_output_std(self) -> float:
        """As `output_std`."""
        return self.init_std / math.sqrt(len(self.patterns["encoder"]))

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        from mjx.models.retro.model import Retro

        return Retro(self, rngs=rngs)

    def lengths(self, arrays: BatchArrays) -> dict[str, Lengths]:
        sequence = arrays["tokens"].shape[1]
        chunks, neighbours, retrieved = 0, 0, self.retrieved_length
        if "retrieved" in arrays:
            _, chunks, neighbours, retrieved = arrays["retrieved"].shape
        return {
            "front": Lengths(sequence),
            "encoder": Lengths(retrieved, self.chunk_length, chunks * neighbours),
            self.stack_name: Lengths(sequence, chunks * neighbours * retrieved),
        }

    def check_batch(self, arrays: BatchArrays) -> None:
        check_arrays(
            arrays,
            {"tokens": "int32", "labels": "int32", "loss_mask": "float32"},
            {"positions": "int32", "segment_ids": "int32", "retrieved": "int32"},
        )
        self.check_rows(arrays, [name for name in arrays if name != "retrieved"])
        if "retrieved" not in arrays:
            return
        rows, sequence = arrays["tokens"].shape
        wanted = (rows, chunks_of(sequence, self.chunk_length))
        shape = arrays["retrieved"].shape
        if shape[:2] != wanted:
            raise InputError(
                f"batch array 'retrieved' has neighbours of {shape[0]} rows of {shape[1]} chunks; rows of "
                f"{sequence} tokens have {wanted[1]} chunks of model.chunk_length = {self.chunk_length}"
            )
        positions = self.longest_row
        if positions is not None and shape[3] > positions:
            raise InputError(
                f"batch array 'retrieved' has neighbours of {shape[3]} tokens, but model.max_positions = "
                f"{self.max_positions}"
            )
