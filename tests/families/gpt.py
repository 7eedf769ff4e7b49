"""Tiny GPTs which between them have the options of the decoder."""

import functools

from families.variants.token import TokenVariant
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.attention.relative_bias import RelativeBiasConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import DispatchConfig, MoEConfig, RouterConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig, RoPEScaling
from mjx.models.gpt import GPTConfig

RMS = NormConfig(kind="rmsnorm")
SMALL = functools.partial(
    GPTConfig, num_layers=2, hidden_size=32, vocab_size=61, vocab_divisor=16, dtype="float32"
)
GROUPED = AttentionConfig(num_heads=4, num_query_groups=2, rope=RoPEConfig())
KEY_BIAS = ("attention.key.bias",)
"""Softmax does not see what all keys have in common."""


def tiny() -> tuple[TokenVariant, ...]:
    return (
        TokenVariant(
            name="GPT-2",
            config=SMALL(
                attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
                mlp=MLPConfig(features=64, activation="gelu-tanh", bias=True),
                max_positions=32,
                tie_embeddings=True,
            ),
            # Tables 61·32 + 32·32; a layer 2·64 + 4·(32·32 + 32) + (32·64 + 64) + (64·32 + 32).
            num_parameters=2976 + 2 * 8544 + 64,
            unseen=KEY_BIAS,
            huggingface="gpt2",
            megatron=True,
        ),
        TokenVariant(
            name="Llama, packed",
            config=SMALL(
                attention=AttentionConfig(
                    num_heads=4,
                    num_query_groups=2,
                    rope=RoPEConfig(scaling=RoPEScaling(kind="llama3", factor=8)),
                ),
                mlp=MLPConfig(features=48, activation="silu", gated=True),
                norm=RMS,
                z_loss=1e-4,
                loss_chunks=2,
            ),
            # Tables 2·61·32; a layer 2·32 + 2·32·32 (queries, output) + 2·32·16 (keys, values) + 3·32·48.
            num_parameters=3904 + 2 * 7744 + 32,
            packs=True,
            huggingface="llama",
            megatron=True,
        ),
        TokenVariant(
            name="Gemma 3",
            config=SMALL(
                num_layers=6,
                attention=AttentionConfig(
                    num_heads=4,
                    num_query_groups=1,
                    head_dim=8,
                    window=4,
                    qk_norm=NormConfig(kind="rmsnorm", zero_centered=True),
                    scale=0.4,
                    rope=RoPEConfig(base=1e4),
                ),
                mlp=MLPConfig(features=48, activation="gelu-tanh", gated=True),
                norm=NormConfig(kind="rmsnorm", zero_centered=True),
                norm_placement="both",
                window_pattern=(True, True, False),
                window_rope=RoPEConfig(base=100.0),
                embedding_scale=32**0.5,
                logit_soft_cap=3.0,
                tie_embeddings=True,
            ),
            # A table 61·32; a layer 4·32 + 2·8 + 2·32·32 (queries, output) + 2·32·8 (keys, values) + 3·32·48.
            num_parameters=1952 + 6 * 7312 + 32,
            huggingface="gemma3_text",
        ),
        TokenVariant(
            name="GPT-NeoX",
            config=SMALL(
                attention=AttentionConfig(
                    num_heads=4, qkv_bias=True, output_bias=True, rope=RoPEConfig(percent=0.25)
                ),
                mlp=MLPConfig(features=64, activation="gelu", bias=True),
                parallel_residual=True,
            ),
            num_parameters=3904 + 2 * 8544 + 64,
            unseen=KEY_BIAS,  # as far as they are not rotated
            huggingface="gpt_neox",
        ),
        TokenVariant(
            name="norms of the sum",
            config=SMALL(
                attention=AttentionConfig(
                    num_heads=4,
                    num_query_groups=2,
                    qk_norm=NormConfig(),
                    qk_norm_over="all_heads",
                    rope=RoPEConfig(percent=0.5, layout="interleaved"),
                    softmax="learnable",
                    soft_cap=2.0,
                    output_gate=True,
                    relative_bias=RelativeBiasConfig(buckets=6, max_distance=9),
                    dropout=0.1,
                ),
                mlp=MLPConfig(features=48, activation="relu2"),
                norm_placement="residual",
                residual_scale=0.7,
                dropout=0.1,
                z_loss=1e-2,
            ),
            # A layer 2·64 + 3·32·32 (queries, gates, output) + 2·32·16 + 4 (sinks) + 64 + 32 (their norms) +
            # 2·32·48; 6·4 of the relative bias.
            num_parameters=3904 + 2 * 7396 + 24,
            chance=True,
        ),
        TokenVariant(
            name="Mixtral, packed",
            config=SMALL(
                attention=GROUPED,
                moe=MoEConfig(
                    experts=4,
                    top_k=2,
                    mlp=MLPConfig(features=24, activation="silu", gated=True),
                    router=RouterConfig(sequence_load_balancing_loss=1e-2, z_loss=1e-3),
                ),
                norm=RMS,
            ),
            # A layer 2·32 + 2·32·32 (queries, output) + 2·32·16 + 32·4 (router) + 4·3·32·24.
            num_parameters=3904 + 2 * 12480 + 32,
            packs=True,
            mesh="fsdp 2 × expert 2 × tensor 2",
            huggingface="mixtral",
            megatron=True,
        ),
        TokenVariant(
            name="experts of DeepSeek and Nemotron",
            config=SMALL(
                num_layers=3,
                attention=GROUPED,
                mlp=MLPConfig(features=48, activation="silu", gated=True),
                moe=MoEConfig(
                    experts=8,
                    top_k=4,
                    mlp=MLPConfig(features=12, activation="silu", gated=True),
                    router=RouterConfig(
                        scores="sigmoid",
                        precision="float64",
                        scaling=2.5,
                        groups=4,
                        top_groups=2,
                        expert_bias_rate=1e-2,
                    ),
                    shared_features=24,
                    shared_gate=True,
                    latent=16,
                    dispatch=DispatchConfig(way="fixed"),
                ),
                dense_layers=1,
                norm=RMS,
            ),
            # 3 layers 2·32 + 2·32·32 + 2·32·16; an MLP 3·32·48; twice 32·8 + 8 (router) + 2·32·16 (latent) +
            # 8·3·16·12 (experts) + 3·32·24 + 32 (shared).
            num_parameters=3904 + 3 * 3136 + 4608 + 2 * 8232 + 32,
            mesh="fsdp 2 × expert 2 × tensor 2",
            in_processes=True,
            buffers=("router.expert_bias",),
            megatron=True,
        ),
    )
