"""Tiny encoder-decoders which between them have the options of the family."""

import functools

from families.variants.encoder_decoder import EncoderDecoderVariant
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.attention.relative_bias import RelativeBiasConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.t5 import T5Config

SMALL = functools.partial(T5Config, hidden_size=32, vocab_size=61, vocab_divisor=16, dtype="float32")
KEY_BIAS = ("attention.key.bias",)
"""Adds the same to all scores of a query, as far as it is not rotated."""


def tiny() -> tuple[EncoderDecoderVariant, ...]:
    return (
        EncoderDecoderVariant(
            name="T5 1.1",
            config=SMALL(
                num_layers=2,
                encoder_layers=3,
                attention=AttentionConfig(
                    num_heads=4,
                    head_dim=6,
                    scale=1.0,
                    relative_bias=RelativeBiasConfig(buckets=8, max_distance=10),
                ),
                mlp=MLPConfig(features=40, activation="gelu-tanh", gated=True),
                norm=NormConfig(kind="rmsnorm", epsilon=1e-6),
            ),
            # Tables 2·61·32 + 2·8·4; a layer of the encoder 4·32·24 + 3·32·40 + 2·32, of the decoder
            # 2·4·32·24 + 3·32·40 + 3·32; norms 2·32.
            num_parameters=3904 + 64 + 3 * 6976 + 2 * 10080 + 64,
            huggingface="t5",
        ),
        EncoderDecoderVariant(
            name="BART",
            config=SMALL(
                num_layers=3,
                encoder_layers=2,
                attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
                mlp=MLPConfig(features=40, activation="gelu", bias=True),
                norm_placement="residual",
                embedding_norm=NormConfig(),
                separate_positions=True,
                max_positions=34,
                first_position=2,
                embedding_scale=32**0.5,
                tie_embeddings=True,
                head_bias=True,
                dropout=0.1,
            ),
            # Tables 61·32 + 2·34·32, a bias 61, norms of embeddings 2·64; a layer of the encoder
            # 4·33·32 + 2·32·40 + 72 + 2·64, of the decoder 2·4·33·32 + 2·32·40 + 72 + 3·64.
            num_parameters=1952 + 2176 + 61 + 128 + 2 * 6984 + 3 * 11272,
            chance=True,
            unseen=KEY_BIAS,
            huggingface="bart",
        ),
        EncoderDecoderVariant(
            name="Megatron's, packed",
            config=SMALL(
                num_layers=2,
                encoder_layers=1,
                attention=AttentionConfig(
                    num_heads=4, num_query_groups=2, qkv_bias=True, output_bias=True, rope=RoPEConfig()
                ),
                mlp=MLPConfig(features=40, bias=True),
                tie_embeddings=True,
                head_bias=True,
            ),
            # A table 61·32 and a bias 61; attention 2·33·32 + 2·33·16; an MLP 2·32·40 + 72; norms of 64: two
            # in a layer of the encoder, three in one of the decoder, one behind either stack.
            num_parameters=1952 + 61 + 5928 + 2 * 9160 + 128,
            packs=True,
            unseen=("cross_attention.key.bias",),
            megatron=True,
        ),
    )
