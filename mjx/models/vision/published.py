"""The sizes of known models.

InternViT has the 25 heads that are published, where Megatron-LM adds heads of zeros.
"""

import dataclasses
from typing import Any

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import Activation, MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.vision.config import VisionConfig

_NORM = NormConfig(epsilon=1e-6)


def _square(side: int, patch: int) -> dict[str, Any]:
    """Pictures of one size, and a learned position for each of their patches."""
    return {"image_size": (side, side), "position_grid": (side // patch, side // patch)}


def _biased(heads: int) -> AttentionConfig:
    return AttentionConfig(num_heads=heads, qkv_bias=True, output_bias=True)


def _first(layers: int, hidden_size: int, heads: int) -> VisionConfig:
    """Google's (Dosovitskiy et al. 2021, table 1), with patches of 16 pixels and without a classifier."""
    return VisionConfig(
        num_layers=layers,
        hidden_size=hidden_size,
        attention=_biased(heads),
        mlp=MLPConfig(features=4 * hidden_size, activation="gelu", bias=True),
        norm=NormConfig(epsilon=1e-12),
    )


def _dinov2(layers: int, hidden_size: int, heads: int, *, swiglu: int | None = None) -> VisionConfig:
    """Oquab et al. 2024, table 16: positions of pictures of 518 pixels; the largest has SwiGLU."""
    mlp = MLPConfig(features=4 * hidden_size, activation="gelu", bias=True)
    if swiglu is not None:
        mlp = MLPConfig(features=swiglu, activation="silu", gated=True, bias=True)
    return VisionConfig(
        num_layers=layers,
        hidden_size=hidden_size,
        patch_size=14,
        **_square(518, 14),
        attention=_biased(heads),
        mlp=mlp,
        norm=_NORM,
        layer_scale=1.0,
        mask_token=True,
    )


_CLIP = VisionConfig(
    num_layers=24,
    hidden_size=1024,
    patch_size=14,
    **_square(336, 14),
    attention=_biased(16),
    mlp=MLPConfig(features=4096, activation="quick-gelu", bias=True),
    patch_bias=False,
    embedding_norm=NormConfig(),
    last_norm="pooled",
)
"""Radford et al. 2021, table 20: ViT-L/14 at 336 pixels."""

_SIGLIP = VisionConfig(
    num_layers=27,
    hidden_size=1152,
    patch_size=14,
    **_square(384, 14),
    attention=_biased(16),
    mlp=MLPConfig(features=4304, activation="gelu-tanh", bias=True),
    norm=_NORM,
    class_tokens=0,
    class_positions=0,
    pooling="attention",
)
"""Zhai et al. 2023, in the shape of Alabdulmohsin et al. 2023."""

_INTERNVIT = VisionConfig(
    num_layers=45,
    hidden_size=3200,
    patch_size=14,
    **_square(448, 14),
    attention=AttentionConfig(
        num_heads=25,
        output_bias=True,
        qk_norm=NormConfig(kind="rmsnorm", epsilon=1e-6),
        qk_norm_over="all_heads",
    ),
    mlp=MLPConfig(features=12800, activation="gelu", bias=True),
    norm=NormConfig(kind="rmsnorm", epsilon=1e-6),
    layer_scale=0.1,
    last_norm=None,
)
"""Chen et al. 2024, table 1."""

_SMALL_INTERNVIT = dataclasses.replace(
    _INTERNVIT,
    num_layers=24,
    hidden_size=1024,
    attention=_biased(16),
    mlp=MLPConfig(features=4096, activation="gelu", bias=True),
    norm=_NORM,
)
"""Distilled of that one."""


def _radio(
    *sizes: int,
    activation: Activation = "gelu-tanh",
    gated: bool = False,
    class_tokens: int = 8,
) -> VisionConfig:
    """Layers, hidden size, heads and features of RADIO (Ranzinger et al. 2024), as Megatron-LM has them: with
    positions of pictures of 2048 pixels that those of others are cut out of."""
    layers, hidden_size, heads, features = sizes
    return VisionConfig(
        num_layers=layers,
        hidden_size=hidden_size,
        image_size=(512, 512),
        attention=_biased(heads),
        mlp=MLPConfig(features=features, activation=activation, gated=gated, bias=True),
        norm=_NORM,
        patch_bias=False,
        class_tokens=class_tokens,
        class_positions=0,
        position_grid=(128, 128),
        position_resizing="bilinear",
        last_norm=None,
    )


PUBLISHED = {
    "vit-base": _first(12, 768, 12),
    "vit-large": _first(24, 1024, 16),
    "dinov2-small": _dinov2(12, 384, 6),
    "dinov2-base": _dinov2(12, 768, 12),
    "dinov2-large": _dinov2(24, 1024, 16),
    "dinov2-giant": _dinov2(40, 1536, 24, swiglu=4096),
    "clip-large-336": _CLIP,
    "siglip-so400m-384": _SIGLIP,
    "internvit-6b": _INTERNVIT,
    "internvit-300m": _SMALL_INTERNVIT,
    "radio": _radio(32, 1280, 16, 5120),
    "radio-g": dataclasses.replace(
        _radio(40, 1536, 24, 4096, activation="silu", gated=True, class_tokens=5),
        patch_size=14,
        image_size=(448, 448),
        patch_bias=True,
        mask_token=True,
        last_norm="tokens",
    ),
    "cradio-g": _radio(40, 1536, 24, 6144),
}
