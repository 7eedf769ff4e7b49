"""T5: encoder-decoders of text (Raffel et al. 2020; Lewis et al. 2020)."""

import dataclasses
import functools
import itertools
from typing import ClassVar

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.attention.cross_attention import CrossAttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import NormPlacement, SublayerConfig, placed_norms
from mjx.models.common.token_model.encoder_decoder import EncoderDecoderConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config(EncoderDecoderConfig):
    """An encoder of attention and MLPs, and a decoder of attention, cross-attention and MLPs.

    The defaults are Megatron's kind of layer; `published.py` has the sizes of known models.
    """

    family: ClassVar[str] = "t5"
    training_choices: ClassVar[tuple[str, ...]] = (
        *EncoderDecoderConfig.training_choices,
        *("attention.dropout", "attention.implementation"),
    )

    num_layers: int
    """Of the decoder: triples of attention, cross-attention and MLP."""
    encoder_layers: int | None = None
    """Pairs of attention and MLP; null: as many as num_layers."""
    attention: AttentionConfig
    """Of both stacks, causal in the decoder alone; cross-attention has as many heads."""
    mlp: MLPConfig
    """Of every layer."""
    norm: NormConfig = NormConfig()
    """Of every sub-layer, and behind both stacks."""
    norm_placement: NormPlacement = "input"
    """input: x + f(norm(x)). residual: norm(x + f(x)), as BART; then there is none behind the stacks. output,
    both and stream: as for GPT."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_layers", "encoder_layers"):
            layers = getattr(self, name)
            if layers is not None and layers < 1:
                raise InputError(f"model.{name} = {layers} must be positive")
        self.patterns  # noqa: B018  # their configs check themselves

    @property
    def final_norm(self) -> NormConfig | None:
        return None if self.norm_placement == "residual" else self.norm

    @property
    def cross_attention(self) -> CrossAttentionConfig:
        """Of every layer of the decoder."""
        attention = self.attention.resolve(self.hidden_size)
        heads, kv_heads, head_dim = attention.dims
        return CrossAttentionConfig(
            memory_size=self.hidden_size,
            num_heads=heads,
            num_query_groups=kv_heads,
            head_dim=head_dim,
            bias=attention.qkv_bias,
            output_bias=attention.output_bias,
            qk_norm=attention.qk_norm,
            scale=attention.scale,
            dropout=attention.dropout,
            implementation="auto" if attention.relative_bias else attention.implementation,
        )

    def encoder_sublayers(self) -> tuple[SublayerConfig, ...]:
        """Attention, an MLP, attention, …"""
        attention = dataclasses.replace(self.attention.resolve(self.hidden_size), causal=False)
        return self._repeated((attention, self.mlp), self.encoder_layers or self.num_layers)

    def sublayers(self) -> tuple[SublayerConfig, ...]:
        """Attention, cross-attention, an MLP, attention, …"""
        attention = dataclasses.replace(self.attention.resolve(self.hidden_size), causal=True)
        return self._repeated((attention, self.cross_attention, self.mlp), self.num_layers)

    def _repeated(self, mixers: tuple, layers: int) -> tuple[SublayerConfig, ...]:
        norms = placed_norms(self.norm, self.norm_placement)
        sublayer = functools.partial(SublayerConfig, **norms, dropout=self.dropout)
        unit = tuple(sublayer(mixer=mixer) for mixer in mixers)
        return tuple(itertools.chain.from_iterable(itertools.repeat(unit, layers)))
