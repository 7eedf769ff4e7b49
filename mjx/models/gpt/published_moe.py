"""The sizes of known mixtures of experts, by name."""

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig, RouterConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig, RoPEScaling
from mjx.models.gpt.config import GPTConfig


def _mixture(
    num_layers: int,
    hidden_size: int,
    *,
    vocab_size: int,
    attention: AttentionConfig,
    moe: MoEConfig,
    epsilon: float = 1e-5,
) -> GPTConfig:
    """RMSNorm, and experts in every layer."""
    return GPTConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        attention=attention,
        moe=moe,
        norm=NormConfig(kind="rmsnorm", epsilon=epsilon),
    )


def _swiglu(features: int) -> MLPConfig:
    return MLPConfig(features=features, activation="silu", gated=True)


def _mixtral(num_layers: int, hidden_size: int, num_heads: int, features: int, vocab_size: int) -> GPTConfig:
    """Mixtral (Jiang et al. 2024, table 1): Mistral's layers with two of eight experts."""
    return _mixture(
        num_layers,
        hidden_size,
        vocab_size=vocab_size,
        attention=AttentionConfig(num_heads=num_heads, num_query_groups=8, rope=RoPEConfig(base=1e6)),
        moe=MoEConfig(experts=8, top_k=2, mlp=_swiglu(features)),
    )


def _qwen2(
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    num_query_groups: int,
    features: int,
    *,
    experts: int,
    top_k: int,
    shared: int,
) -> GPTConfig:
    """Qwen1.5-MoE and Qwen2-MoE (Qwen team 2024, section 2.2.2): small experts, and one of every token."""
    return _mixture(
        num_layers,
        hidden_size,
        vocab_size=151_936,
        epsilon=1e-6,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_query_groups=num_query_groups,
            qkv_bias=True,
            rope=RoPEConfig(base=1e6),
        ),
        moe=MoEConfig(
            experts=experts,
            top_k=top_k,
            mlp=_swiglu(features),
            router=RouterConfig(normalized=False),
            shared_features=shared,
            shared_gate=True,
        ),
    )


def _qwen3(num_layers: int, hidden_size: int, num_heads: int, features: int) -> GPTConfig:
    """Qwen3 (Qwen team 2025, table 2): 8 of 128 experts and none that all tokens share."""
    return _mixture(
        num_layers,
        hidden_size,
        vocab_size=151_936,
        epsilon=1e-6,
        attention=AttentionConfig(
            num_heads=num_heads,
            num_query_groups=4,
            head_dim=128,
            qk_norm=NormConfig(kind="rmsnorm", epsilon=1e-6),
            rope=RoPEConfig(base=1e6),
        ),
        moe=MoEConfig(experts=128, top_k=8, mlp=_swiglu(features)),
    )


def _gpt_oss(num_layers: int, experts: int) -> GPTConfig:
    """gpt-oss (OpenAI 2025): sinks, every other layer local, clamped experts with biases."""
    scaling = RoPEScaling(kind="yarn", factor=32.0, original_positions=4096, round_ramp=False)
    return GPTConfig(
        num_layers=num_layers,
        hidden_size=2880,
        vocab_size=201_088,
        attention=AttentionConfig(
            num_heads=64,
            num_query_groups=8,
            head_dim=64,
            qkv_bias=True,
            output_bias=True,
            rope=RoPEConfig(base=150_000.0, scaling=scaling),
            window=128,
            softmax="learnable",
        ),
        moe=MoEConfig(
            experts=experts,
            top_k=4,
            mlp=MLPConfig(
                features=2880, activation="quick-gelu", gated=True, bias=True, clamp=7.0, linear_offset=1.0
            ),
            router=RouterConfig(bias=True),
        ),
        norm=NormConfig(kind="rmsnorm", epsilon=1e-5),
        window_pattern=(True, False),
    )


def _olmoe() -> GPTConfig:
    """OLMoE (Muennighoff et al. 2024, table 10): 8 of 64 experts, QK-norm over all heads."""
    norm = NormConfig(kind="rmsnorm", epsilon=1e-5)
    return _mixture(
        16,
        2048,
        vocab_size=50_304,
        attention=AttentionConfig(num_heads=16, qk_norm=norm, qk_norm_over="all_heads", rope=RoPEConfig()),
        moe=MoEConfig(experts=64, top_k=8, mlp=_swiglu(1024), router=RouterConfig(normalized=False)),
    )


MIXTURES: dict[str, GPTConfig] = {
    "mixtral-8x7b": _mixtral(32, 4096, 32, 14336, 32_000),
    "mixtral-8x22b": _mixtral(56, 6144, 48, 16384, 32_768),
    "qwen1.5-moe-a2.7b": _qwen2(24, 2048, 16, 16, 1408, experts=60, top_k=4, shared=5632),
    "qwen2-57b-a14b": _qwen2(28, 3584, 28, 4, 2560, experts=64, top_k=8, shared=20480),
    "qwen3-30b-a3b": _qwen3(48, 2048, 32, 768),
    "qwen3-235b-a22b": _qwen3(94, 4096, 64, 1536),
    "gpt-oss-20b": _gpt_oss(24, 32),
    "gpt-oss-120b": _gpt_oss(36, 128),
    "olmoe-1b-7b": _olmoe(),
}
