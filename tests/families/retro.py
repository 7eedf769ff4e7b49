"""Tiny models that look things up, which between them have the options of the family."""

import functools

from families.variants.retrieving import RetrievingVariant
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.retro import RetroConfig

SMALL = functools.partial(
    RetroConfig,
    hidden_size=32,
    vocab_size=61,
    vocab_divisor=16,
    chunk_length=4,
    retrieved_length=8,
    encoder_dropout=0.0,
    encoder_attention_dropout=0.0,
    dtype="float32",
)


def tiny() -> tuple[RetrievingVariant, ...]:
    return (
        RetrievingVariant(
            name="Megatron's",
            config=SMALL(
                num_layers=6,
                attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
                mlp=MLPConfig(features=40, bias=True),
                max_positions=32,
                tie_embeddings=True,
            ),
            # Tables 61·32 + 32·32; layers of 4·33·32 + 2·32·40 + 72 + 2·64, six and two of the encoder; two
            # looks of 4·33·32 + 64.
            num_parameters=1952 + 1024 + 8 * 6984 + 2 * 4288,
            context=False,
            megatron=True,
            unseen=("key.bias",),
        ),
        RetrievingVariant(
            name="rotated, gated, several looks",
            config=SMALL(
                num_layers=4,
                first_look=2,
                looks_every=1,
                encoder_layers=3,
                attention=AttentionConfig(num_heads=4, num_query_groups=2, rope=RoPEConfig()),
                mlp=MLPConfig(features=40, activation="silu", gated=True),
                norm=NormConfig(kind="rmsnorm"),
                last_norm=True,
                neighbours=3,
            ),
            # Tables 2·61·32; layers of 2·32·32 + 2·32·16 + 3·32·40 + 2·32, four, and three of the encoder;
            # four looks of 3072 + 32; a norm.
            num_parameters=3904 + 7 * 6976 + 4 * 3104 + 32,
            context=False,
        ),
    )
