"""Tiny language models that see, which between them have the options of the family."""

import dataclasses
import functools

from families.variants.seeing import SeeingVariant
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.gpt import GPTConfig
from mjx.models.multimodal import MultimodalConfig
from mjx.models.multimodal.projector import ProjectorConfig
from mjx.models.vision import VisionConfig

LANGUAGE = GPTConfig(
    num_layers=2,
    hidden_size=32,
    vocab_size=61,
    vocab_divisor=16,
    attention=AttentionConfig(num_heads=4, num_query_groups=2, rope=RoPEConfig()),
    mlp=MLPConfig(features=40, activation="silu", gated=True),
    norm=NormConfig(kind="rmsnorm"),
    dtype="float32",
)
# Tables 2·61·32; a layer 2·32·32 + 2·32·16 + 3·32·40 + 2·32; a norm 32.
OF_LANGUAGE = 3904 + 2 * 6976 + 32
VISION = VisionConfig(
    num_layers=3,
    hidden_size=24,
    attention=AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True),
    mlp=MLPConfig(features=40, activation="quick-gelu", bias=True),
    image_size=(14, 14),
    patch_size=7,
    position_grid=(2, 2),
    patch_bias=False,
    embedding_norm=NormConfig(),
    last_norm="pooled",
    dtype="float32",
)
# A layer 2·48 + 4·(24·24 + 24) + (24·40 + 40) + (40·24 + 24).
VISION_LAYER = 4480
KEY_BIAS = ("attention.key.bias",)
SMALL = functools.partial(MultimodalConfig, language=LANGUAGE, image_token=60, dtype="float32")


def tiny() -> tuple[SeeingVariant, ...]:
    sees = dataclasses.replace(
        VISION,
        patch_bias=True,
        class_tokens=0,
        class_positions=0,
        pooling="mean",
        embedding_norm=None,
        last_norm="tokens",
    )
    return (
        SeeingVariant(
            name="LLaVA",
            config=SMALL(vision=VISION, vision_layers=2),
            # Patches 147·24, a class token, 5 positions, three layers, two norms; 25·32 + 33·32.
            num_parameters=OF_LANGUAGE + 3528 + 24 + 120 + 3 * VISION_LAYER + 96 + 800 + 1056,
            # The norm and the layer behind those that are run; the other variant runs all.
            unseen=("language*key.bias", "vision.encoder.*", "vision.final_norm.*"),
            huggingface="llava",
        ),
        SeeingVariant(
            name="patches merged, affine",
            config=SMALL(vision=sees, merged=4, projector=ProjectorConfig(kind="affine", bias=False)),
            num_parameters=OF_LANGUAGE + 3552 + 96 + 3 * VISION_LAYER + 48 + 96 * 32,
            unseen=KEY_BIAS,
            megatron=True,
        ),
        SeeingVariant(
            name="LLaVA-NeXT",
            config=SMALL(vision=VISION, vision_layers=2, pinpoints=((14, 28), (14, 42))),
            # As LLaVA, and a newline.
            num_parameters=OF_LANGUAGE + 3528 + 24 + 120 + 3 * VISION_LAYER + 96 + 800 + 1056 + 32,
            unseen=("language*key.bias", "vision.encoder.*", "vision.final_norm.*"),
            huggingface="llava_next",
            patches=32,
            size=(28, 20),
            prompt_lengths=(14, 15),
        ),
        SeeingVariant(
            name="positions along axes, windows",
            config=SMALL(
                language=dataclasses.replace(
                    LANGUAGE,
                    attention=dataclasses.replace(LANGUAGE.attention, rope=RoPEConfig(sections=(1, 1, 2))),
                ),
                vision=dataclasses.replace(
                    sees,
                    num_layers=2,
                    hidden_size=32,
                    image_size=(28, 28),
                    frames=2,
                    position_grid=None,
                    patch_bias=False,
                    last_norm=None,
                    norm=NormConfig(kind="rmsnorm"),
                    window=2,
                    whole_layers=(1,),
                    attention=dataclasses.replace(
                        VISION.attention,
                        rope=RoPEConfig(sections=(2, 2), section_frequencies="own"),
                    ),
                ),
                merged=4,
                projector=ProjectorConfig(features=20, norm=NormConfig(kind="rmsnorm"), norm_of="patch"),
            ),
            # Patches 294·32, two layers of 2·32 + 4·33·32 + 2·32·40 + 72; a norm, 129·20 + 21·32.
            num_parameters=OF_LANGUAGE + 9408 + 2 * 6920 + 32 + 2580 + 672,
            unseen=KEY_BIAS,
            patches=32,
        ),
    )
