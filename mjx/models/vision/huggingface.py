"""Hugging Face's vision transformers that ours can be."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.architecture import ACTIVATIONS, UNQUANTIZED, WITHOUT_MEANING, Architecture
from mjx.models.interop.class_keys import Classes
from mjx.models.interop.config_map import Absent, ConfigMap, Constant, Entry, Fields, Key, Only, Theirs, shown
from mjx.models.interop.name_map import NameMap
from mjx.models.vision.config import VisionConfig
from mjx.models.vision.config_keys import canonical
from mjx.models.vision.huggingface_names import clip_names, dinov2_names, vit_names
from mjx.models.vision.huggingface_native import NATIVE
from mjx.models.vision.internvl import ENTRIES as INTERNVL
from mjx.models.vision.internvl import internvl_names


@dataclasses.dataclass(frozen=True)
class Pictures:
    """`image_size` and `patch_size`: a square, or two sides; each patch has a position."""

    size: int
    patch: int

    def names(self) -> Sequence[str]:
        return ("image_size", "patch_size")

    def ours(self, theirs: Theirs) -> Fields:
        patch, size = theirs.get("patch_size") or self.patch, theirs.get("image_size") or self.size
        sides = size if isinstance(size, list | tuple) else (size, size)
        if type(patch) is not int or patch < 1:
            raise InputError(
                f'{theirs.where} has "patch_size": {shown(patch)}, which mjx does not compute; it should be '
                "a number from 1 on"
            )
        if len(sides) != 2 or any(type(side) is not int or side < patch for side in sides):
            raise InputError(
                f'{theirs.where} has "image_size": {shown(size)}, which should be a number of pixels, or '
                f"two, from patch_size = {patch} on"
            )
        height, width = sides
        return {
            "image_size": (height, width),
            "patch_size": patch,
            "position_grid": (height // patch, width // patch),
        }

    def theirs(self, config: VisionConfig) -> dict[str, Any]:
        height, width = (side * config.patch_size for side in config.position_grid or config.grid)
        return {
            "image_size": height if height == width else [height, width],
            "patch_size": config.patch_size,
        }


@dataclasses.dataclass(frozen=True)
class DinoFeatures:
    """`mlp_ratio` and `use_swiglu_ffn`: SwiGLU's features are two thirds of that, in steps of eight."""

    def names(self) -> Sequence[str]:
        return ("mlp_ratio", "use_swiglu_ffn", "hidden_act", "hidden_size")

    def ours(self, theirs: Theirs) -> Fields:
        size, ratio = theirs.get("hidden_size", 768), theirs.get("mlp_ratio", 4)
        features = int(size * ratio)
        if theirs.get("use_swiglu_ffn"):
            features = (int(features * 2 / 3) + 7) // 8 * 8
            return {"mlp.features": features, "mlp.gated": True, "mlp.activation": "silu"}
        activation = theirs.get("hidden_act") or "gelu"
        if activation not in ACTIVATIONS:
            raise InputError(
                f'{theirs.where} has "hidden_act": {shown(activation)}; known are {", ".join(ACTIVATIONS)}'
            )
        return {"mlp.features": features, "mlp.gated": False, "mlp.activation": ACTIVATIONS[activation]}

    def theirs(self, config: VisionConfig) -> dict[str, Any]:
        features, size = config.mlp.features, config.hidden_size
        if not config.mlp.gated:
            activation = next(name for name, ours in ACTIVATIONS.items() if ours == config.mlp.activation)
            return {"mlp_ratio": _ratio(features, size), "use_swiglu_ffn": False, "hidden_act": activation}
        ratios = (wide / size for wide in range(features, 2 * features + 1))
        fitting = (ratio for ratio in ratios if (int(int(size * ratio) * 2 / 3) + 7) // 8 * 8 == features)
        return {"mlp_ratio": next(fitting, None), "use_swiglu_ffn": True, "hidden_act": "gelu"}


def _ratio(features: int, size: int) -> float:
    """A whole number where it is one, else the nearest from which the product is not rounded down."""
    if features % size == 0:
        return features // size
    return next(r for r in (features / size, (features + 0.5) / size) if int(size * r) == features)


_LAYERS = (
    UNQUANTIZED,
    Key("hidden_size", "hidden_size", 768),
    Key("num_hidden_layers", "num_layers", 12),
    Key("num_attention_heads", "attention.num_heads", 12),
    Key("num_channels", "channels", 3),
    Key("initializer_range", "init_std", 0.02),
    Constant("attention.output_bias", value=True),
    Constant("mlp.bias", value=True),
)
_FIRST = (
    *_LAYERS,
    Key("qkv_bias", "attention.qkv_bias", default=True),
    Key("hidden_dropout_prob", "dropout", 0.0),
    Key("attention_probs_dropout_prob", "attention.dropout", 0.0),
    Pictures(224, 16),
)
_VIT = (
    *_FIRST,
    Key("intermediate_size", "mlp.features", 3072),
    Key("hidden_act", "mlp.activation", "gelu", ACTIVATIONS),
    Key("layer_norm_eps", "norm.epsilon", 1e-12),
    Only("pooler_act", "tanh"),
)
_VIT_WITHOUT_MEANING = ("encoder_stride", "pooler_output_size")
_DINOV2 = (
    *_FIRST,
    DinoFeatures(),
    Key("layer_norm_eps", "norm.epsilon", 1e-6),
    Key("layerscale_value", "layer_scale", 1.0),
    Absent(("drop_path_rate",)),
)
_DINOV2_WITHOUT_MEANING = (
    *("apply_layernorm", "out_features", "out_indices", "reshape_hidden_states", "stage_names"),
)
_REGISTER_TOKENS = Key("num_register_tokens", "registers", 4)
_REGISTERS = (
    Constant("mask_token", value=True),
    Constant("position_resizing", "bicubic-antialias"),
)
_MASK = Key("use_mask_token", "mask_token", default=True)
_CLIP = (
    *_LAYERS,
    Key("intermediate_size", "mlp.features", 3072),
    Key("hidden_act", "mlp.activation", "quick_gelu", ACTIVATIONS),
    Key("layer_norm_eps", ("norm.epsilon", "embedding_norm.epsilon"), 1e-5),
    Key("attention_dropout", "attention.dropout", 0.0),
    Pictures(224, 32),
    Constant("attention.qkv_bias", value=True),
    Constant("patch_bias", value=False),
    Constant("last_norm", "pooled"),
)
_SIGLIP = (
    *_LAYERS,
    Key("intermediate_size", "mlp.features", 3072),
    Key("hidden_act", "mlp.activation", "gelu_pytorch_tanh", ACTIVATIONS),
    Key("layer_norm_eps", "norm.epsilon", 1e-6),
    Key("attention_dropout", "attention.dropout", 0.0),
    Pictures(224, 16),
    Constant("attention.qkv_bias", value=True),
    Constant("class_tokens", 0),
    Constant("class_positions", 0),
    Key("vision_use_head", "pooling", True, {True: "attention", False: "mean"}),
)
CLIP_WITHOUT_MEANING = ("initializer_factor", "projection_dim", "model_type", "dropout")


def _architecture(
    model_type: str,
    class_name: str,
    *entries: Entry,
    names: Callable[[VisionConfig, str], NameMap],
    prefix: str,
    without_meaning: Sequence[str] = (),
) -> Architecture:
    return Architecture(
        model_type=model_type,
        class_name=class_name,
        config=ConfigMap(VisionConfig, entries, (*WITHOUT_MEANING, *without_meaning)),
        name_map=lambda config: names(config, prefix),
        prefix=prefix,
        canonical=canonical,
        aliases={r"vision_model\.(.*)": r"\1"} if not prefix else {},
    )


ARCHITECTURES = (
    _architecture(
        *("vit", "ViTForImageClassification"),
        *(*_VIT, Classes()),
        names=vit_names,
        prefix="vit.",
        without_meaning=_VIT_WITHOUT_MEANING,
    ),
    _architecture(
        *("vit", "ViTModel"),
        *(*_VIT, Constant("pooler", value=True)),
        names=vit_names,
        prefix="",
        without_meaning=_VIT_WITHOUT_MEANING,
    ),
    _architecture(
        *("dinov2", "Dinov2Model"),
        *(*_DINOV2, _MASK),
        names=dinov2_names,
        prefix="",
        without_meaning=_DINOV2_WITHOUT_MEANING,
    ),
    _architecture(
        *("dinov2", "Dinov2ForImageClassification"),
        *(*_DINOV2, _MASK, Classes(), Constant("pooling", "class and mean")),
        names=dinov2_names,
        prefix="dinov2.",
        without_meaning=_DINOV2_WITHOUT_MEANING,
    ),
    _architecture(
        *("dinov2_with_registers", "Dinov2WithRegistersForImageClassification"),
        *(*_DINOV2, _REGISTER_TOKENS, *_REGISTERS, Classes(), Constant("pooling", "class and mean")),
        names=dinov2_names,
        prefix="dinov2_with_registers.",
        without_meaning=_DINOV2_WITHOUT_MEANING,
    ),
    _architecture(
        *("dinov2_with_registers", "Dinov2WithRegistersModel"),
        *(*_DINOV2, _REGISTER_TOKENS, *_REGISTERS),
        names=dinov2_names,
        prefix="",
        without_meaning=_DINOV2_WITHOUT_MEANING,
    ),
    _architecture(
        *("clip_vision_model", "CLIPVisionModel"),
        *_CLIP,
        names=clip_names,
        prefix="",
        without_meaning=CLIP_WITHOUT_MEANING,
    ),
    _architecture(
        *("siglip_vision_model", "SiglipVisionModel"),
        *_SIGLIP,
        names=clip_names,
        prefix="",
        without_meaning=CLIP_WITHOUT_MEANING,
    ),
    _architecture(*("internvl_vision", "InternVLVisionModel"), *INTERNVL, names=internvl_names, prefix=""),
    *NATIVE,
)
"""Ordered: a model that several can hold is written as the first of them."""
