"""The sizes of known models, by name: `model: {family: mamba, preset: mamba2-1.3b}`."""

import dataclasses
import math

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig, RouterConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig, TimeStepConfig
from mjx.models.mamba.config import MambaConfig, ScaleConfig, ScalesConfig
from mjx.models.mamba.shared_block import SharedBlockConfig


def _mamba(num_layers: int, hidden_size: int) -> MambaConfig:
    """Gu and Dao 2023, table 12, with the vocabulary of GPT-NeoX."""
    return MambaConfig(
        hybrid_pattern="m" * num_layers,
        hidden_size=hidden_size,
        vocab_size=50_280,
        selective_scan=SelectiveScanConfig(),
        tie_embeddings=True,
    )


def _mamba2(num_layers: int, hidden_size: int) -> MambaConfig:
    """Dao and Gu 2024, table 9: one group, and a vocabulary in multiples of 16."""
    return MambaConfig(
        hybrid_pattern="M" * num_layers,
        hidden_size=hidden_size,
        vocab_size=50_288,
        ssd=SSDConfig(groups=1, chunk_size=256),
        tie_embeddings=True,
    )


def _nemotron_h(
    pattern: str,
    hidden_size: int,
    num_heads: int,
    features: int,
    *,
    ssd_heads: int,
    state: int = 128,
    ssd_head_dim: int = 64,
    vocab_size: int = 131_072,
) -> MambaConfig:
    """Nemotron-H (NVIDIA 2025), as transformers has it: attention knows no positions."""
    return MambaConfig(
        hybrid_pattern=pattern,
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        ssd=SSDConfig(heads=ssd_heads, head_dim=ssd_head_dim, state=state),
        attention=AttentionConfig(num_heads=num_heads, num_query_groups=8, head_dim=128),
        mlp=MLPConfig(features=features, activation="relu2"),
    )


def _jamba() -> MambaConfig:
    """Jamba (Lieber et al. 2024): one layer of attention in eight, experts in every other."""
    return MambaConfig(
        hybrid_pattern="m-mEm-mE*-mEm-mE" * 4,
        hidden_size=4096,
        vocab_size=65_536,
        selective_scan=SelectiveScanConfig(inner_norm=NormConfig(kind="rmsnorm", epsilon=1e-6)),
        attention=AttentionConfig(num_heads=32, num_query_groups=8),
        mlp=(mlp := MLPConfig(features=14336, activation="silu", gated=True)),
        moe=MoEConfig(experts=16, top_k=2, mlp=mlp, router=RouterConfig(normalized=False)),
        norm=NormConfig(kind="rmsnorm", epsilon=1e-6),
    )


def _nemotron3_nano() -> MambaConfig:
    """Nemotron 3 Nano (NVIDIA 2025): experts in the place of MLPs."""
    return MambaConfig(
        hybrid_pattern="MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
        hidden_size=2688,
        vocab_size=131_072,
        ssd=SSDConfig(heads=64),
        attention=AttentionConfig(num_heads=32, num_query_groups=2, head_dim=128),
        moe=MoEConfig(
            experts=128,
            top_k=6,
            mlp=MLPConfig(features=1856, activation="relu2"),
            router=RouterConfig(scores="sigmoid", scaling=2.5, expert_bias_rate=1e-3),
            shared_features=3712,
        ),
    )


def _granite(
    hidden_size: int,
    num_heads: int,
    kv_heads: int,
    ssd_heads: int,
    *,
    logits_scaling: float,
    score_scale: float = 2**-7,
    mlp: MLPConfig | None = None,
    moe: MoEConfig | None = None,
) -> MambaConfig:
    """Granite 4.0 (IBM 2025): attention in every tenth layer, which knows no positions."""
    types, behind = "MMMMM*MMMM" * 4, "-" if moe is None else "E"
    return MambaConfig(
        hybrid_pattern="".join(symbol + behind for symbol in types),
        hidden_size=hidden_size,
        vocab_size=100_352,
        ssd=SSDConfig(heads=ssd_heads, groups=1, chunk_size=256),
        attention=AttentionConfig(num_heads=num_heads, num_query_groups=kv_heads, scale=score_scale),
        mlp=mlp,
        moe=moe,
        tie_embeddings=True,
        embedding_scale=12.0,
        logit_scale=1 / logits_scaling,
        residual_scale=0.22,
    )


def _granite_experts(experts: int, top_k: int, features: int) -> MoEConfig:
    """And one of twice the size, that every token takes."""
    mlp = MLPConfig(features=features, activation="silu", gated=True)
    return MoEConfig(experts=experts, top_k=top_k, mlp=mlp, shared_features=2 * features)


def _falcon_h1(
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    features: int,
    vocab_size: int,
    *,
    ssd: SSDConfig,
    kv_heads: int = 2,
    head_dim: int = 128,
    key_scale: float = 1.0,
    gate_scale: float = 1.0,
    scales: ScalesConfig | None = None,
    embedding_scale: float = 1.0,
    logit_scale: float = 1.0,
) -> MambaConfig:
    """Falcon-H1 (TII 2025): Mamba-2 beside attention. Each size has multipliers of its own."""
    return MambaConfig(
        hybrid_pattern="(M*)-" * num_layers,
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        ssd=dataclasses.replace(ssd, norm="none"),
        attention=AttentionConfig(
            num_heads=num_heads,
            num_query_groups=kv_heads,
            head_dim=head_dim,
            rope=RoPEConfig(base=1e11),
            scale=key_scale / math.sqrt(head_dim),
        ),
        mlp=MLPConfig(features=features, activation="silu", gated=True, gate_scale=gate_scale),
        scales=scales or ScalesConfig(),
        embedding_scale=embedding_scale,
        logit_scale=logit_scale,
    )


def _falcon_ssd(heads: int, head_dim: int, *, state: int = 256, groups: int = 1) -> SSDConfig:
    return SSDConfig(heads=heads, head_dim=head_dim, state=state, groups=groups)


_ROOT = math.sqrt(2)
_FALCON_H1_500M = _falcon_h1(
    *(36, 1024, 8, 2048, 32_784),
    ssd=dataclasses.replace(
        _falcon_ssd(24, 64, state=128), scales=(_ROOT / 4, 0.25, _ROOT / 4, 0.5, _ROOT / 4)
    ),
    head_dim=64,
    embedding_scale=4 * _ROOT,
    logit_scale=5 / 128,
    key_scale=25 / 64,
    gate_scale=5 * _ROOT / 8,
    scales=ScalesConfig(
        ssd=ScaleConfig(input=1.25, output=_ROOT / 6),
        attention=ScaleConfig(output=15 / 16),
        mlp=ScaleConfig(output=75 / 128),
    ),
)


def _zamba2(
    pattern: str,
    hidden_size: int,
    *,
    state: int,
    groups: int = 1,
    blocks: int = 2,
    attention_adapters: bool = False,
    rope: RoPEConfig | None = None,
) -> MambaConfig:
    """Zamba2 (Glorioso et al. 2024), as transformers has it."""
    attention = AttentionConfig(num_heads=32, rope=rope, scale=(hidden_size // 32) ** -0.5)
    return MambaConfig(
        hybrid_pattern=pattern,
        hidden_size=hidden_size,
        vocab_size=32_000,
        ssd=SSDConfig(groups=groups, state=state, chunk_size=256, dt=TimeStepConfig(limit=(1e-3, None))),
        shared_block=SharedBlockConfig(
            attention=attention,
            mlp=MLPConfig(features=4 * hidden_size, gated=True),
            blocks=blocks,
            attention_adapters=attention_adapters,
        ),
        tie_embeddings=True,
    )


_ZAMBA2_7B = "M" * 6 + "SM" + ("M" * 4 + "SM") + ("M" * 5 + "SM") * 11 + "M" * 3
_EIGHT_B = "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"
_NEMOTRON_H = "M-M-M-M*-" + "M-M-M-M-M*-" * 3 + "M-M-M-M-M-"
_NEMOTRON_H_56B = "M-M-M-M*-" + "M-M-M-M-M*-" * 9 + "M-M-M-M-M-"
_NEMOTRON_H_47B = (
    "M-M-M-M-M-M-M-M-M*-"
    + "M-M-M-M-M-M-M-M-M-M*-"
    + "M-M-M-M-M*-" * 2
    + "M-M-M-M-M-M-M---MM---M-M*-M-M-M-M-M-"
)
_NANO_9B = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"

PUBLISHED = {
    "mamba-130m": _mamba(24, 768),
    "mamba-370m": _mamba(48, 1024),
    "mamba-790m": _mamba(48, 1536),
    "mamba-1.4b": _mamba(48, 2048),
    "mamba-2.8b": _mamba(64, 2560),
    "mamba2-130m": _mamba2(24, 768),
    "mamba2-370m": _mamba2(48, 1024),
    "mamba2-780m": _mamba2(48, 1536),
    "mamba2-1.3b": _mamba2(48, 2048),
    "mamba2-2.7b": _mamba2(64, 2560),
    "falcon-mamba-7b": MambaConfig(
        hybrid_pattern="m" * 64,
        hidden_size=4096,
        vocab_size=65_024,
        selective_scan=SelectiveScanConfig(
            inner_norm=NormConfig(kind="rmsnorm", epsilon=1e-6), inner_norm_gain=False
        ),
    ),
    # Waleffe et al. 2024, as its script in Megatron-LM.
    "mamba2-hybrid-8b": _nemotron_h(_EIGHT_B, 4096, 32, 16384, ssd_heads=128, vocab_size=256_000),
    "nemotron-h-8b": _nemotron_h(_NEMOTRON_H, 4096, 32, 21504, ssd_heads=128),
    "nemotron-h-47b": _nemotron_h(_NEMOTRON_H_47B, 8192, 64, 30720, ssd_heads=256, state=256),
    "nemotron-h-56b": _nemotron_h(_NEMOTRON_H_56B, 8192, 64, 32768, ssd_heads=256, state=256),
    "nemotron-nano-9b-v2": _nemotron_h(_NANO_9B, 4480, 40, 15680, ssd_heads=128, ssd_head_dim=80),
    "nemotron3-nano": _nemotron3_nano(),
    "jamba-v0.1": _jamba(),
    "granite-4.0-h-micro": _granite(
        *(2048, 32, 8, 64),
        logits_scaling=8,
        score_scale=2**-6,
        mlp=MLPConfig(features=8192, activation="silu", gated=True),
    ),
    "granite-4.0-h-tiny": _granite(1536, 12, 4, 48, logits_scaling=6, moe=_granite_experts(64, 6, 512)),
    "granite-4.0-h-small": _granite(4096, 32, 8, 128, logits_scaling=16, moe=_granite_experts(72, 10, 768)),
    "zamba2-1.2b": _zamba2(
        *(("M" * 5 + "SM") * 6 + "M" * 2, 2048),
        state=128,
        blocks=1,
        attention_adapters=True,
        rope=RoPEConfig(),
    ),
    "zamba2-2.7b": _zamba2(
        *("M" + ("M" * 5 + "SM") * 7 + "MMMMSM" + "MMMSM" + "MM", 2560),
        state=64,
    ),
    "zamba2-7b": _zamba2(_ZAMBA2_7B, 3584, state=64, groups=2, rope=RoPEConfig()),
    # 0.5B with the multipliers of its config.json, the others without any.
    "falcon-h1-0.5b": _FALCON_H1_500M,
    "falcon-h1-1.5b": _falcon_h1(24, 2048, 8, 4608, 65_537, ssd=_falcon_ssd(48, 64)),
    "falcon-h1-1.5b-deep": _falcon_h1(66, 1280, 6, 3072, 65_537, ssd=_falcon_ssd(24, 64)),
    "falcon-h1-3b": _falcon_h1(32, 2560, 10, 6144, 65_537, ssd=_falcon_ssd(32, 128)),
    "falcon-h1-7b": _falcon_h1(44, 3072, 12, 12288, 130_048, ssd=_falcon_ssd(24, 128)),
    "falcon-h1-34b": _falcon_h1(72, 5120, 20, 21504, 261_120, ssd=_falcon_ssd(32, 128, groups=2), kv_heads=4),
}
