"""The sizes of known models."""

from mjx.models.bert.config import BertConfig
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.common.token_model.head import HeadTransformConfig


def _first(layers: int, hidden_size: int, heads: int, *, vocab_size: int = 30522) -> BertConfig:
    """Google's (Devlin et al. 2019, table 6 and section 3)."""
    norm = NormConfig(epsilon=1e-12)
    return BertConfig(
        num_layers=layers,
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        max_positions=512,
        token_types=2,
        attention=AttentionConfig(num_heads=heads, qkv_bias=True, output_bias=True, dropout=0.1),
        mlp=MLPConfig(features=4 * hidden_size, bias=True),
        norm=norm,
        norm_placement="residual",
        embedding_norm=norm,
        head_transform=HeadTransformConfig(norm=norm),
        head_bias=True,
        tie_embeddings=True,
        pooler=True,
        sentence_head=True,
        dropout=0.1,
    )


def _megatron(layers: int, hidden_size: int, heads: int) -> BertConfig:
    """Megatron-LM's scripts (Shoeybi et al. 2019, section 4): norms in front."""
    return BertConfig(
        num_layers=layers,
        hidden_size=hidden_size,
        vocab_size=30522,
        max_positions=512,
        token_types=2,
        attention=AttentionConfig(num_heads=heads, qkv_bias=True, output_bias=True, dropout=0.1),
        mlp=MLPConfig(features=4 * hidden_size, bias=True),
        head_transform=HeadTransformConfig(),
        head_bias=True,
        tie_embeddings=True,
        pooler=True,
        sentence_head=True,
        dropout=0.1,
    )


def _modern(layers: int, hidden_size: int, heads: int, features: int) -> BertConfig:
    """ModernBERT (Warner et al. 2024, table 4); its norms have a gain and no bias, and are centred."""
    norm = NormConfig(kind="layernorm", bias=False)
    return BertConfig(
        num_layers=layers,
        hidden_size=hidden_size,
        vocab_size=50368,
        attention=AttentionConfig(num_heads=heads, rope=RoPEConfig(base=160_000.0), window=65),
        mlp=MLPConfig(features=features, gated=True),
        norm=norm,
        embedding_norm=norm,
        first_norm=False,
        window_pattern=(False, True, True),
        window_rope=RoPEConfig(base=10_000.0),
        head_transform=HeadTransformConfig(norm=norm, bias=False),
        head_bias=True,
        tie_embeddings=True,
    )


PUBLISHED = {
    "bert-base": _first(12, 768, 12),
    "bert-large": _first(24, 1024, 16),
    "bert-megatron-345m": _megatron(24, 1024, 16),
    "modernbert-base": _modern(22, 768, 12, 1152),
    "modernbert-large": _modern(28, 1024, 16, 2624),
}
