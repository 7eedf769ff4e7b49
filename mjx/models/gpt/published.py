"""The sizes of known models, by name: `model: {family: gpt, preset: llama3-8b}`."""

from typing import Literal

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig, RoPEScaling
from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.published_moe import MIXTURES

ZERO_CENTERED = NormConfig(kind="rmsnorm", epsilon=1e-6, zero_centered=True)


def _gpt(
    num_layers: int, hidden_size: int, num_heads: int, *, positions: int, head_dim: int | None = None
) -> GPTConfig:
    """GPT-2 (Radford et al. 2019, table 2) and GPT-3 (Brown et al. 2020, table 2.1)."""
    return GPTConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        vocab_size=50257,
        attention=AttentionConfig(num_heads=num_heads, head_dim=head_dim, qkv_bias=True, output_bias=True),
        mlp=MLPConfig(features=4 * hidden_size, activation="gelu-tanh", bias=True),
        max_positions=positions,
        tie_embeddings=True,
    )


def _llama(
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    num_query_groups: int,
    features: int,
    *,
    vocab_size: int,
    base: float = 10_000.0,
    scaling: RoPEScaling | None = None,
    head_dim: int | None = None,
    epsilon: float = 1e-5,
    tied: bool = False,
    qkv_bias: bool = False,
    qk_norm: bool = False,
    window: int | None = None,
) -> GPTConfig:
    """RMSNorm, rotary positions, SwiGLU, grouped queries (Touvron et al. 2023), and its descendants."""
    norm = NormConfig(kind="rmsnorm", epsilon=epsilon)
    return GPTConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_query_groups=num_query_groups,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            qk_norm=norm if qk_norm else None,
            rope=RoPEConfig(base=base, scaling=scaling),
            window=window,
        ),
        mlp=MLPConfig(features=features, activation="silu", gated=True),
        norm=norm,
        tie_embeddings=tied,
    )


def _llama3(*sizes: int, factor: float | None = None, **options) -> GPTConfig:
    """Llama 3 (Grattafiori et al. 2024); `factor` stretches the context of 8192 as 3.1 and 3.2 do."""
    scaling = RoPEScaling(kind="llama3", factor=factor) if factor else None
    return _llama(*sizes, vocab_size=128_256, base=500_000.0, scaling=scaling, **options)


def _qwen25(*sizes: int, vocab_size: int = 152_064, tied: bool = False) -> GPTConfig:
    """Qwen2.5 (Qwen team 2024)."""
    return _llama(*sizes, vocab_size=vocab_size, base=1e6, epsilon=1e-6, qkv_bias=True, tied=tied)


def _qwen3(*sizes: int, tied: bool = False) -> GPTConfig:
    """Qwen3 (Qwen team 2025): heads of 128 whatever the width, and QK-norm."""
    return _llama(*sizes, vocab_size=151_936, base=1e6, epsilon=1e-6, head_dim=128, qk_norm=True, tied=tied)


def _neox(
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    vocab_size: int,
    *,
    activation: Literal["gelu", "gelu-tanh"] = "gelu",
) -> GPTConfig:
    """GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023, table 1), vocabularies as padded by
    their authors."""
    return GPTConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        attention=AttentionConfig(
            num_heads=num_heads, qkv_bias=True, output_bias=True, rope=RoPEConfig(percent=0.25)
        ),
        mlp=MLPConfig(features=4 * hidden_size, activation=activation, bias=True),
        parallel_residual=True,
    )


def _olmo2(num_layers: int, hidden_size: int, num_heads: int, features: int) -> GPTConfig:
    """OLMo 2 (OLMo team 2024, section 2): norms behind the sub-layers, and over all heads."""
    norm = NormConfig(kind="rmsnorm", epsilon=1e-6)
    return GPTConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        vocab_size=100_352,
        attention=AttentionConfig(
            num_heads=num_heads, qk_norm=norm, qk_norm_over="all_heads", rope=RoPEConfig(base=500_000.0)
        ),
        mlp=MLPConfig(features=features, activation="silu", gated=True),
        norm=norm,
        norm_placement="output",
    )


def _nemotron(
    num_layers: int, hidden_size: int, num_heads: int, features: int, *, head_dim: int = 128
) -> GPTConfig:
    """Nemotron-4 (Parmar et al. 2024, table 1) and what was pruned from it (Muralidharan et al. 2024)."""
    return GPTConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        vocab_size=256_000,
        attention=AttentionConfig(
            num_heads=num_heads, num_query_groups=8, head_dim=head_dim, rope=RoPEConfig(percent=0.5)
        ),
        mlp=MLPConfig(features=features, activation="relu2"),
        norm=NormConfig(zero_centered=True),
    )


def _gemma2(
    num_layers: int, hidden_size: int, num_heads: int, features: int, *, head_dim: int, scale: float
) -> GPTConfig:
    """Gemma 2 (Gemma team 2024, table 1): every other layer is local, scores and logits are bounded."""
    return GPTConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        vocab_size=256_000,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_query_groups=num_heads // 2,
            head_dim=head_dim,
            rope=RoPEConfig(),
            window=4096,
            soft_cap=50.0,
            scale=scale,
        ),
        mlp=MLPConfig(features=features, activation="gelu-tanh", gated=True),
        norm=ZERO_CENTERED,
        norm_placement="both",
        window_pattern=(True, False),
        tie_embeddings=True,
        embedding_scale=hidden_size**0.5,
        logit_soft_cap=30.0,
    )


def _gemma3(
    num_layers: int, hidden_size: int, num_heads: int, num_query_groups: int, features: int, *, window: int
) -> GPTConfig:
    """Gemma 3 (Gemma team 2025), the text models: five local layers to a global one, QK-norm."""
    return GPTConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        vocab_size=262_144,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_query_groups=num_query_groups,
            head_dim=256,
            qk_norm=ZERO_CENTERED,
            rope=RoPEConfig(base=1e6),
            window=window,
        ),
        mlp=MLPConfig(features=features, activation="gelu-tanh", gated=True),
        norm=ZERO_CENTERED,
        norm_placement="both",
        window_pattern=(True, True, True, True, True, False),
        window_rope=RoPEConfig(base=10_000.0),
        tie_embeddings=True,
        embedding_scale=hidden_size**0.5,
    )


PUBLISHED: dict[str, GPTConfig] = {
    "gpt2-124m": _gpt(12, 768, 12, positions=1024),
    "gpt2-355m": _gpt(24, 1024, 16, positions=1024),
    "gpt2-774m": _gpt(36, 1280, 20, positions=1024),
    "gpt2-1.5b": _gpt(48, 1600, 25, positions=1024),
    "gpt3-125m": _gpt(12, 768, 12, positions=2048),
    "gpt3-350m": _gpt(24, 1024, 16, positions=2048),
    "gpt3-760m": _gpt(24, 1536, 16, positions=2048),
    "gpt3-1.3b": _gpt(24, 2048, 24, positions=2048, head_dim=128),
    "gpt3-2.7b": _gpt(32, 2560, 32, positions=2048),
    "gpt3-6.7b": _gpt(32, 4096, 32, positions=2048),
    "gpt3-13b": _gpt(40, 5120, 40, positions=2048),
    "gpt3-175b": _gpt(96, 12288, 96, positions=2048),
    "llama2-7b": _llama(32, 4096, 32, 32, 11008, vocab_size=32_000),
    "llama2-13b": _llama(40, 5120, 40, 40, 13824, vocab_size=32_000),
    "llama2-70b": _llama(80, 8192, 64, 8, 28672, vocab_size=32_000),
    "llama3-8b": _llama3(32, 4096, 32, 8, 14336),
    "llama3-70b": _llama3(80, 8192, 64, 8, 28672),
    "llama3.1-8b": _llama3(32, 4096, 32, 8, 14336, factor=8),
    "llama3.1-70b": _llama3(80, 8192, 64, 8, 28672, factor=8),
    "llama3.1-405b": _llama3(126, 16384, 128, 8, 53248, factor=8),
    "llama3.2-1b": _llama3(16, 2048, 32, 8, 8192, factor=32, tied=True),
    "llama3.2-3b": _llama3(28, 3072, 24, 8, 8192, factor=32, tied=True),
    "mistral-7b-v0.1": _llama(32, 4096, 32, 8, 14336, vocab_size=32_000, window=4096),
    "mistral-7b-v0.3": _llama(32, 4096, 32, 8, 14336, vocab_size=32_768, base=1e6),
    "qwen2.5-0.5b": _qwen25(24, 896, 14, 2, 4864, vocab_size=151_936, tied=True),
    "qwen2.5-1.5b": _qwen25(28, 1536, 12, 2, 8960, vocab_size=151_936, tied=True),
    "qwen2.5-3b": _qwen25(36, 2048, 16, 2, 11008, vocab_size=151_936, tied=True),
    "qwen2.5-7b": _qwen25(28, 3584, 28, 4, 18944),
    "qwen2.5-14b": _qwen25(48, 5120, 40, 8, 13824),
    "qwen2.5-32b": _qwen25(64, 5120, 40, 8, 27648),
    "qwen2.5-72b": _qwen25(80, 8192, 64, 8, 29568),
    "qwen3-0.6b": _qwen3(28, 1024, 16, 8, 3072, tied=True),
    "qwen3-1.7b": _qwen3(28, 2048, 16, 8, 6144, tied=True),
    "qwen3-4b": _qwen3(36, 2560, 32, 8, 9728, tied=True),
    "qwen3-8b": _qwen3(36, 4096, 32, 8, 12288),
    "qwen3-14b": _qwen3(40, 5120, 40, 8, 17408),
    "qwen3-32b": _qwen3(64, 5120, 64, 8, 25600),
    "phi3-mini-4k": _llama(32, 3072, 32, 32, 8192, vocab_size=32_064, window=2047),
    "pythia-160m": _neox(12, 768, 12, 50_304),
    "pythia-410m": _neox(24, 1024, 16, 50_304),
    "pythia-1.4b": _neox(24, 2048, 16, 50_304),
    "pythia-2.8b": _neox(32, 2560, 32, 50_304),
    "pythia-6.9b": _neox(32, 4096, 32, 50_432),
    "pythia-12b": _neox(36, 5120, 40, 50_688),
    "neox-20b": _neox(44, 6144, 64, 50_432, activation="gelu-tanh"),
    "olmo2-1b": _olmo2(16, 2048, 16, 8192),
    "olmo2-7b": _olmo2(32, 4096, 32, 11008),
    "olmo2-13b": _olmo2(40, 5120, 40, 13824),
    "nemotron4-15b": _nemotron(32, 6144, 48, 24576),
    "minitron-4b": _nemotron(32, 3072, 24, 9216),
    "minitron-8b": _nemotron(32, 4096, 48, 16384),
    "gemma2-2b": _gemma2(26, 2304, 8, 9216, head_dim=256, scale=256**-0.5),
    "gemma2-9b": _gemma2(42, 3584, 16, 14336, head_dim=256, scale=256**-0.5),
    "gemma2-27b": _gemma2(46, 4608, 32, 36864, head_dim=128, scale=144**-0.5),
    "gemma3-1b": _gemma3(26, 1152, 4, 1, 6912, window=512),
    **MIXTURES,
}
