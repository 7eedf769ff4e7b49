"""Tiny vision transformers which between them have the options of the family."""

import functools

from families.variants.picture import PictureVariant
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.vision import VisionConfig

SMALL = functools.partial(
    VisionConfig,
    num_layers=2,
    hidden_size=32,
    attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
    mlp=MLPConfig(features=40, bias=True),
    image_size=(28, 28),
    patch_size=7,
    channels=1,
    position_grid=(4, 4),
    classes=3,
    dtype="float32",
)
KEY_BIAS = ("attention.key.bias",)
"""Softmax does not see what all keys have in common."""
# A layer 2·64 + 4·(32·32 + 32) + (32·40 + 40) + (40·32 + 32).
LAYER = 6984


def tiny() -> tuple[PictureVariant, ...]:
    return (
        PictureVariant(
            name="the first ViT",
            config=SMALL(norm=NormConfig(epsilon=1e-12)),
            padded_to=24,
            # Patches 50·32, a class token, 17 positions; a norm 64; three classes of 33.
            num_parameters=1600 + 32 + 17 * 32 + 2 * LAYER + 64 + 99,
            unseen=KEY_BIAS,
            huggingface="vit",
        ),
        PictureVariant(
            name="SigLIP's pooling",
            config=SMALL(class_tokens=0, class_positions=0, pooling="attention", dropout=0.1),
            # As above with 16 positions; a query, a layer's attention, MLP and one norm.
            num_parameters=1600 + 16 * 32 + 2 * LAYER + 64 + (32 + LAYER - 64) + 99,
            chance=True,
            unseen=(*KEY_BIAS, "pooling.key.bias"),
        ),
        PictureVariant(
            name="DINOv2, registers",
            config=SMALL(
                norm=NormConfig(epsilon=1e-6),
                registers=2,
                mask_token=True,
                layer_scale=0.5,
                pooling="class and mean",
                position_resizing="bicubic-antialias",
            ),
            padded_to=24,
            # Patches 50·32, tokens 4·32, 17 positions; factors 2·32 a layer; three classes of 65.
            num_parameters=1600 + 4 * 32 + 17 * 32 + 2 * (LAYER + 64) + 64 + 195,
            unseen=(*KEY_BIAS, "mask_token"),
            huggingface="dinov2_with_registers",
        ),
    )
