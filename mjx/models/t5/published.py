"""The sizes of known models."""

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.attention.relative_bias import RelativeBiasConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.t5.config import T5Config

_VOCABULARY = 32128


def _first(layers: int, hidden_size: int, heads: int, features: int, *, head_dim: int = 64) -> T5Config:
    """T5 1.0 (Raffel et al. 2020, section 3.7): the head is the token table, its input scaled."""
    attention = AttentionConfig(
        num_heads=heads, head_dim=head_dim, scale=1.0, relative_bias=RelativeBiasConfig(), dropout=0.1
    )
    return T5Config(
        num_layers=layers,
        hidden_size=hidden_size,
        vocab_size=_VOCABULARY,
        attention=attention,
        mlp=MLPConfig(features=features, activation="relu"),
        norm=NormConfig(kind="rmsnorm", epsilon=1e-6),
        tie_embeddings=True,
        logit_scale=hidden_size**-0.5,
        dropout=0.1,
    )


def _gated(layers: int, hidden_size: int, heads: int, features: int) -> T5Config:
    """T5 1.1 (Shazeer 2020), and Flan-T5 (Chung et al. 2022): gated, with a head of its own."""
    attention = AttentionConfig(
        num_heads=heads, head_dim=64, scale=1.0, relative_bias=RelativeBiasConfig(), dropout=0.1
    )
    return T5Config(
        num_layers=layers,
        hidden_size=hidden_size,
        vocab_size=_VOCABULARY,
        attention=attention,
        mlp=MLPConfig(features=features, activation="gelu-tanh", gated=True),
        norm=NormConfig(kind="rmsnorm", epsilon=1e-6),
        dropout=0.1,
    )


_MEGATRON = T5Config(
    num_layers=12,
    hidden_size=768,
    vocab_size=29184,
    max_positions=512,
    attention=AttentionConfig(num_heads=12, head_dim=64, qkv_bias=True, output_bias=True, dropout=0.1),
    mlp=MLPConfig(features=3072, bias=True),
    tie_embeddings=True,
    head_bias=True,
    dropout=0.1,
    init_std=0.015,
)
"""Megatron-LM's script."""

PUBLISHED = {
    "t5-small": _first(6, 512, 8, 2048),
    "t5-base": _first(12, 768, 12, 3072),
    "t5-large": _first(24, 1024, 16, 4096),
    "t5-3b": _first(24, 1024, 32, 16384, head_dim=128),
    "t5-11b": _first(24, 1024, 128, 65536, head_dim=128),
    "t5-v1.1-small": _gated(8, 512, 6, 1024),
    "t5-v1.1-base": _gated(12, 768, 12, 2048),
    "t5-v1.1-large": _gated(24, 1024, 16, 2816),
    "t5-v1.1-xl": _gated(24, 2048, 32, 5120),
    "t5-v1.1-xxl": _gated(24, 4096, 64, 10240),
    "t5-megatron-220m": _MEGATRON,
}
