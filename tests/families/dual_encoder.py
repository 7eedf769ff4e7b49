"""Tiny models of two towers, which between them have the options of the family."""

import dataclasses
import functools

from families.variants.paired import END, PairedVariant
from mjx.models.bert import BertConfig
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.dual_encoder import DualEncoderConfig, ProjectionConfig
from mjx.models.gpt import GPTConfig
from mjx.models.vision import VisionConfig

BIASED = AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True)
MLP = MLPConfig(features=40, activation="quick-gelu", bias=True)
VISION = VisionConfig(
    num_layers=2,
    hidden_size=24,
    attention=BIASED,
    mlp=MLP,
    image_size=(12, 20),
    patch_size=4,
    position_grid=(3, 5),
    patch_bias=False,
    embedding_norm=NormConfig(),
    last_norm="pooled",
    dtype="float32",
)
# Patches 48·24; a layer 2·48 + 4·(24·24 + 24) + (24·40 + 40) + (40·24 + 24).
PATCHES, VISION_LAYER = 1152, 4480
TEXT = dict(
    num_layers=2,
    hidden_size=32,
    vocab_size=61,
    vocab_divisor=16,
    max_positions=16,
    attention=BIASED,
    tie_embeddings=True,
    dtype="float32",
)
# Tables 61·32 + 16·32; a layer 2·64 + 4·(32·32 + 32) + (32·40 + 40) + (40·32 + 32); a norm 64.
OF_TEXT = 1952 + 512 + 2 * 6984 + 64
KEY_BIAS = ("attention.key.bias",)
SMALL = functools.partial(DualEncoderConfig, dtype="float32")


def tiny() -> tuple[PairedVariant, ...]:
    sees = dataclasses.replace(
        VISION,
        image_size=(16, 16),
        position_grid=(4, 4),
        patch_bias=True,
        class_tokens=0,
        class_positions=0,
        pooling="attention",
        embedding_norm=None,
        last_norm="tokens",
    )
    tanh = dataclasses.replace(MLP, activation="gelu-tanh")
    projection = ProjectionConfig(features=20)
    return (
        PairedVariant(
            name="CLIP",
            config=SMALL(
                vision=VISION,
                text=GPTConfig(**TEXT, mlp=MLP),
                end_token=END,
                vision_projection=projection,
                text_projection=projection,
            ),
            # A class token, 16 positions, two norms; projections of 20; the scale.
            num_parameters=OF_TEXT + PATCHES + 24 + 16 * 24 + 2 * VISION_LAYER + 96 + 20 * (24 + 32) + 1,
            unseen=KEY_BIAS,
            huggingface="clip",
        ),
        PairedVariant(
            name="SigLIP",
            config=SMALL(
                vision=dataclasses.replace(sees, mlp=tanh),
                text=BertConfig(**TEXT, mlp=tanh),
                text_pooling="last",
                pad_token=1,
                text_projection=ProjectionConfig(features=24, bias=True),
                loss="sigmoid",
                logit_scale=2.3,
                logit_bias=-3.0,
            ),
            # Patches with a bias, 16 positions, a norm; the pooling has a layer's numbers, but for one norm,
            # and a probe; the projection 33·24; scale and bias.
            num_parameters=OF_TEXT + PATCHES + 24 + 16 * 24 + 3 * VISION_LAYER + 48 - 48 + 24 + 33 * 24 + 2,
            unseen=(*KEY_BIAS, "pooling.key.bias"),
            huggingface="siglip",
        ),
        PairedVariant(
            name="mean of a text, averaged patches",
            config=SMALL(
                vision=dataclasses.replace(sees, pooling="mean"),
                text=BertConfig(**TEXT, mlp=MLP),
                text_pooling="mean",
                vision_projection=ProjectionConfig(features=32, bias=True),
                largest_scale=None,
            ),
            num_parameters=OF_TEXT + PATCHES + 24 + 16 * 24 + 2 * VISION_LAYER + 48 + 25 * 32 + 1,
            unseen=KEY_BIAS,
        ),
    )
