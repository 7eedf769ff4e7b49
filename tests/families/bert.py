"""Tiny encoders which between them have the options of BERT."""

import functools

from families.variants.encoder import EncoderVariant
from mjx.models.bert import BertConfig
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.contrastive import ContrastiveConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.common.token_model.head import HeadTransformConfig

SMALL = functools.partial(
    BertConfig, hidden_size=32, vocab_size=61, vocab_divisor=16, tie_embeddings=True, dtype="float32"
)
FIRST = functools.partial(
    SMALL,
    num_layers=2,
    max_positions=32,
    token_types=2,
    attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
    mlp=MLPConfig(features=64, bias=True),
    pooler=True,
)
NORM, NO_BIAS = NormConfig(epsilon=1e-12), NormConfig(bias=False)
KEY_BIAS = ("attention.key.bias",)
"""Softmax does not see what all keys have in common."""


def tiny() -> tuple[EncoderVariant, ...]:
    # Tables 61·32 + 32·32 + 2·32; a layer 2·64 + 4·(32·32 + 32) + (32·64 + 64) + (64·32 + 32); the pooler
    # 33·32. The head of tokens 33·32 + 64 + 61, that of pairs 33·2. One norm, before the heads or behind the
    # embeddings, 64.
    first = 3040 + 2 * 8544 + 1056 + 64
    return (
        EncoderVariant(
            name="Megatron's, pairs",
            config=FIRST(head_transform=HeadTransformConfig(), head_bias=True, sentence_head=True),
            num_parameters=first + 1181 + 66,
            unseen=KEY_BIAS,
            megatron=True,
        ),
        EncoderVariant(
            name="the first BERT",
            config=FIRST(
                norm=NORM,
                norm_placement="residual",
                embedding_norm=NORM,
                init_std=0.1,  # behind norms so few steps learn nothing from small beginnings
                head_transform=HeadTransformConfig(norm=NORM),
                head_bias=True,
                sentence_head=True,
            ),
            num_parameters=first + 1181 + 66,
            unseen=KEY_BIAS,
            huggingface="bert",
        ),
        EncoderVariant(
            name="ModernBERT, packed",
            config=SMALL(
                num_layers=3,
                attention=AttentionConfig(num_heads=4, rope=RoPEConfig(base=500.0), window=4),
                mlp=MLPConfig(features=24, gated=True),
                norm=NO_BIAS,
                embedding_norm=NO_BIAS,
                first_norm=False,
                window_pattern=(False, True),
                window_rope=RoPEConfig(base=50.0),
                head_transform=HeadTransformConfig(norm=NO_BIAS, bias=False),
                head_bias=True,
            ),
            # A table 61·32 and its bias 61; a layer 4·32·32 + 3·32·24; five norms in them, one behind the
            # embeddings, one before the head and one in it, 32; the head's layer 32·32.
            num_parameters=1952 + 61 + 3 * 6400 + 8 * 32 + 1024,
            packs=True,
            huggingface="modernbert",
        ),
        EncoderVariant(
            name="classes",
            config=FIRST(norm=NORM, norm_placement="residual", embedding_norm=NORM, classes=3),
            num_parameters=first + 33 * 3,
            unseen=KEY_BIAS,
            huggingface="bert",
        ),
        EncoderVariant(
            name="pairs told from others",
            config=SMALL(
                num_layers=1,
                attention=AttentionConfig(num_heads=4, rope=RoPEConfig(base=500.0)),
                mlp=MLPConfig(features=24, gated=True),
                # Rounding of the states is rounding of the loss, divided by the temperature.
                contrastive=ContrastiveConfig(temperature=0.5, symmetric=True),
                pooling="mean",
            ),
            num_parameters=1952 + 6400 + 3 * 64,
        ),
    )
