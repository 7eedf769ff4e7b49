"""Tiny hybrids which between them have the options of the decoder."""

import dataclasses
import functools

from families.variants.token import TokenVariant
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig, RouterConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig, TimeStepConfig
from mjx.models.mamba import MambaConfig
from mjx.models.mamba.config import ScaleConfig, ScalesConfig
from mjx.models.mamba.shared_block import SharedBlockConfig

SMALL = functools.partial(MambaConfig, hidden_size=32, vocab_size=61, vocab_divisor=16, dtype="float32")
SSD = SSDConfig(state=8, head_dim=8, groups=2, chunk_size=8)


def tiny() -> tuple[TokenVariant, ...]:
    return (
        TokenVariant(
            name="Mamba-2",
            config=SMALL(hybrid_pattern="MM", ssd=SSD),
            # Tables 2·61·32; a layer 32 + 32·168 (gate 64, value 64, B and C 32, steps 8) + 96·5 (taps) +
            # 3·8 + 64 (norm) + 64·32.
            num_parameters=3904 + 2 * 8024 + 32,
            huggingface="mamba2",
            megatron=True,
        ),
        TokenVariant(
            name="Mamba-1, packed",
            config=SMALL(
                hybrid_pattern="mm",
                selective_scan=SelectiveScanConfig(state=8, dt_rank=4, bias=True),
                tie_embeddings=True,
            ),
            # A table 61·32; a layer 32 + 33·128 (gate, value) + 64·5 (convolution) + 64·20 (steps 4, B, C) +
            # 5·64 (steps) + 64·8 (A) + 64 (D) + 65·32.
            num_parameters=1952 + 2 * 8832 + 32,
            packs=True,
            huggingface="mamba",
        ),
        TokenVariant(
            name="hybrid, packed",
            config=SMALL(
                hybrid_pattern="M-*E",
                ssd=SSDConfig(state=8, head_dim=8, heads=4, groups=1, chunk_size=8),
                attention=AttentionConfig(num_heads=4, num_query_groups=2, head_dim=8),
                mlp=MLPConfig(features=48, activation="relu2"),
                moe=MoEConfig(
                    experts=4,
                    mlp=MLPConfig(features=24, activation="relu2"),
                    router=RouterConfig(scores="sigmoid", expert_bias_rate=1e-3),
                    shared_features=24,
                ),
            ),
            # M 32 + 32·84 (gate 32, value 32, B and C 16, steps 4) + 48·5 + 3·4 + 32 (norm) + 32·32;
            # - 32 + 2·32·48; * 32 + 2·32·32 + 2·32·16; E 32 + 32·4 + 4 + 4·2·32·24 + 2·32·24.
            num_parameters=3904 + 4028 + 3104 + 3104 + 7844 + 32,
            packs=True,
            mesh="fsdp 2 × expert 2 × tensor 2",
            buffers=("router.expert_bias",),
            huggingface="nemotron_h",
            megatron=True,
        ),
        TokenVariant(
            name="a shared block, and side by side, packed",
            config=SMALL(
                hybrid_pattern="SS(M*)",
                ssd=dataclasses.replace(
                    SSD,
                    heads=4,
                    groups=1,
                    norm="before gate",
                    dt=TimeStepConfig(limit=(1e-3, None)),
                ),
                attention=AttentionConfig(num_heads=4, num_query_groups=2, head_dim=8),
                shared_block=SharedBlockConfig(
                    attention=AttentionConfig(num_heads=4, rope=RoPEConfig()),
                    mlp=MLPConfig(features=24, gated=True, gate_scale=1.4),
                    rank=4,
                ),
                tie_embeddings=True,
                logit_scale=0.6,
                scales=ScalesConfig(
                    ssd=ScaleConfig(input=1.2, output=0.9), shared_block=ScaleConfig(output=0.8)
                ),
            ),
            # A table 61·32; the block 64 + 3·64·64 + 64·32 + 32 + 3·32·24; a place 32·4 + 2·4·24 + 32·32;
            # M 32·84 + 48·5 + 3·4 + 32 (norm) + 32·32; * 2·32·32 + 2·32·16; two norms 32.
            num_parameters=1952 + 16736 + 2 * 1344 + 3996 + 3072 + 2 * 32,
            packs=True,
        ),
    )
