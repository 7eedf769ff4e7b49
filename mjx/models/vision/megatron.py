"""Encoders of pictures as Megatron-Core has them, `CLIPViTModel` and `RADIOViTModel`: names and settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.config_map import Absent, ConfigMap, Constant, Fields, Key, Theirs, shown
from mjx.models.interop.megatron import attention as megatron_attention
from mjx.models.interop.megatron.keys import (
    Activation,
    Biases,
    ComputeDtype,
    Features,
    QueryGroups,
    Recomputation,
)
from mjx.models.interop.megatron.model import MegatronModel
from mjx.models.interop.megatron.rows import layer_rows
from mjx.models.interop.mixer_rows import norm_rows
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.vision.config import VisionConfig
from mjx.models.vision.config_keys import canonical
from mjx.models.vision.huggingface_names import patch_rows, vision_name_map

_KINDS: dict[str, dict[str, Any]] = {
    "clip": {"patch_bias": False, "embedding_norm": True, "last_norm": None},
    "siglip": {"patch_bias": True, "embedding_norm": False, "last_norm": "tokens", "class_tokens": 0},
    "internvit": {"patch_bias": True, "embedding_norm": False, "last_norm": None},
    "radio": {"patch_bias": False, "embedding_norm": False, "last_norm": None, "class_positions": 0},
    "radio-g": {
        **{"patch_bias": True, "embedding_norm": False, "last_norm": "tokens", "class_positions": 0},
        "mask_token": True,
    },
}
"""`vision_model_type` → what is peculiar to it."""
_SAME = {"internvit300M": "internvit", "cradio-g": "radio"}
"""Other sizes of one kind."""
_RADIO = {"radio": (8, 2048), "radio-g": (5, 1792)}
"""How many class tokens it has, and the side in pixels of the pictures whose patches have positions."""


def megatron_name_map(config: VisionConfig) -> NameMap:
    """Megatron's tensors (those of the local layer spec) ↔ our parameters, for this model.

    Raises:
        InputError: Megatron-Core has no such model.
    """
    refused = {
        "model.pooler = true": config.pooler,
        "model.classes": config.classes is not None,
        f"model.pooling = {config.pooling}": config.pooling == "attention",
        "model.registers": config.registers > 0,
        "model.mask_token = true": config.mask_token and _kind(config) != "radio-g",
        "model.position_grid = null": config.position_grid is None,
        f"model.norm_placement = {config.norm_placement}": config.norm_placement != "input",
    }
    for name, holds in refused.items():
        if holds:
            raise InputError(f"{name} is not in Megatron-Core's encoders of pictures")
    attention = config.attention.resolve(config.hidden_size)
    rows = layer_rows("decoder.layers.{layer}", config.norm, attention, mlp=config.mlp)
    if config.layer_scale is not None:  # of the layers that InternViT has of its own
        rows.append(Row("decoder.layers.{layer}.ls1", "{attention}.output_gain"))
        rows.append(Row("decoder.layers.{layer}.ls2", "{mlp}.output_gain"))
    if _kind(config) in _RADIO:
        rows += [
            Row("embedder.weight", "patches.kernel", "embed pixels -> pixels embed"),
            Row("position_embeddings", "positions", "1 positions embed -> positions embed"),
            Row("class_token", "class_tokens"),
        ]
        if config.patch_bias:
            rows.append(Row("embedder.bias", "patches.bias"))
        if config.mask_token:
            rows.append(Row("mask_token", "mask_token", "1 embed -> embed"))
    else:
        rows += [*patch_rows(config, "conv1"), Row("position_embeddings.weight", "positions")]
        if config.class_tokens:
            rows.append(Row("class_token", "class_tokens", "1 positions embed -> positions embed"))
    if config.embedding_norm is not None:
        rows += norm_rows(config.embedding_norm, "ln_pre", "embedding_norm")
    if config.last_norm == "tokens":
        rows += norm_rows(config.norm, "ln_post", "final_norm")
    return vision_name_map(config, rows)


def _kind(config: VisionConfig) -> str:
    if config.embedding_norm is not None:
        return "clip"
    if not config.class_tokens:
        return "siglip"
    if config.class_positions:
        return "internvit"
    return "radio-g" if config.mask_token or config.last_norm == "tokens" else "radio"


@dataclasses.dataclass(frozen=True)
class _Encoder:
    """`vision_model_type`, and the sizes of pictures and patches."""

    def names(self) -> Sequence[str]:
        return (
            *("vision_model_type", "img_h", "img_w", "patch_dim", "class_token_len", "add_class_token"),
            *("max_img_h", "max_img_w", "embedder_bias", "has_cpe", "force_cpe_eval_mode", "force_eval_mode"),
            *("interpolate_only_cpe", "cpe_aspect_ratio_select", "interpolate_align_corners"),
        )

    def ours(self, theirs: Theirs) -> Fields:
        given = theirs.get("vision_model_type")
        kind = _SAME.get(str(given), given)
        if kind not in _KINDS:
            known = ", ".join((*_KINDS, *_SAME))
            raise InputError(f'{theirs.where} has "vision_model_type": {shown(given)}; known are {known}')
        patch, height, width = (
            theirs.get(name) or default
            for name, default in (("patch_dim", 14), ("img_h", 336), ("img_w", 336))
        )
        tokens, side = _RADIO.get(kind, (1, None))
        table = [
            theirs.get(f"max_img_{axis}") or side or size for axis, size in (("h", height), ("w", width))
        ]
        tokens = theirs.get("class_token_len") or tokens
        fields = {"class_tokens": tokens, "class_positions": tokens, **_KINDS[kind]}
        if theirs.get("add_class_token") is False:
            fields["class_tokens"] = 0
        fields["class_positions"] = min(fields["class_positions"], fields["class_tokens"])
        normed = fields.pop("embedding_norm")
        if kind in _RADIO and theirs.get("embedder_bias") is not None:
            fields["patch_bias"] = theirs["embedder_bias"]
        return {
            **fields,
            **({} if normed else {"embedding_norm": None}),
            "image_size": (height, width),
            "patch_size": patch,
            "position_grid": (table[0] // patch, table[1] // patch),
            **(_radio_positions(theirs) if kind in _RADIO else {"position_resizing": "bicubic"}),
            "pooling": "class" if fields["class_tokens"] else "mean",
        }

    def theirs(self, config: VisionConfig) -> dict[str, Any]:
        rows, columns = config.position_grid or config.grid
        kind = _kind(config)
        sizes = {"img_h": rows * config.patch_size, "img_w": columns * config.patch_size}
        if kind in _RADIO:
            sizes |= {
                "max_img_h": sizes["img_h"],
                "max_img_w": sizes["img_w"],
                "embedder_bias": config.patch_bias,
                "has_cpe": True,
                "force_cpe_eval_mode": not config.position_crops,
                "interpolate_only_cpe": config.position_view == "whole",
                "cpe_aspect_ratio_select": config.position_view == "aspect",
                "interpolate_align_corners": config.position_resizing == "bilinear-corners",
            }
        return {
            "vision_model_type": kind,
            "patch_dim": config.patch_size,
            "class_token_len": config.class_tokens,
            "add_class_token": config.class_tokens > 0,
            **sizes,
        }


def _radio_positions(theirs: Theirs) -> Fields:
    """Before `interpolate_align_corners` could be set, it was what is done."""
    if theirs.get("has_cpe") is False:
        raise InputError(
            f'{theirs.where} has "has_cpe": false; mjx resizes a table of positions, or crops it'
        )
    stretched, aspect = (bool(theirs.get(key)) for key in ("interpolate_only_cpe", "cpe_aspect_ratio_select"))
    frozen = any(theirs.get(key) for key in ("force_cpe_eval_mode", "force_eval_mode"))
    corners = theirs.get("interpolate_align_corners") is not False
    return {
        "position_resizing": "bilinear-corners" if corners else "bilinear",
        "position_view": "aspect" if aspect else "whole" if stretched else "square",
        "position_crops": not (frozen or stretched),
    }


def describes(theirs: Mapping[str, Any]) -> bool:
    """Whether arguments are of an encoder alone, without a language model's vocabulary."""
    alone = all(
        theirs.get(name) is None for name in ("vocab_size", "padded_vocab_size", "language_model_type")
    )
    return theirs.get("vision_model_type") is not None and alone


SETTINGS = ConfigMap(
    VisionConfig,
    (
        Key("num_layers", "num_layers"),
        Key("hidden_size", "hidden_size"),
        Features(),
        Biases(),
        Activation(),
        _Encoder(),
        Key("num_attention_heads", "attention.num_heads"),
        QueryGroups(),
        Key("kv_channels", "attention.head_dim", None),
        Key(
            *("normalization", ("norm.kind", "embedding_norm.kind", "attention.qk_norm.kind"), "LayerNorm"),
            megatron_attention.NORMS,
        ),
        Key("norm_epsilon", ("norm.epsilon", "embedding_norm.epsilon", "attention.qk_norm.epsilon"), 1e-5),
        Key(
            "apply_layernorm_1p",
            ("norm.zero_centered", "embedding_norm.zero_centered", "attention.qk_norm.zero_centered"),
            default=False,
        ),
        megatron_attention.QueryKeyNorm(),
        Key("attention_dropout", "attention.dropout", 0.1),
        Key("hidden_dropout", "dropout", 0.1),
        Key("init_method_std", "init_std", 0.02),
        Constant("layer_scale", None),
        ComputeDtype(),
        Recomputation(),
        Absent(("num_experts",)),
        Absent(("multi_latent_attention",)),
    ),
    closed=False,
)

MEGATRON = MegatronModel(
    name_map=megatron_name_map, settings=SETTINGS, describes=describes, canonical=canonical
)
