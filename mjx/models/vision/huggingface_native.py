"""Hugging Face's encoders of pictures of any size, whose patches are turned by their row and column."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.common.rope import RoPEConfig
from mjx.models.interop.architecture import ACTIVATIONS, UNQUANTIZED, WITHOUT_MEANING, Architecture
from mjx.models.interop.config_map import ConfigMap, Constant, Entry, Fields, Key, Theirs, shown
from mjx.models.interop.mixer_rows import FROM_HEADS, mlp_rows, norm_rows
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.vision.config import VisionConfig
from mjx.models.vision.config_keys import canonical
from mjx.models.vision.huggingface_names import mlp_rows as biased_mlp_rows
from mjx.models.vision.huggingface_names import patch_rows, vision_name_map


@dataclasses.dataclass(frozen=True)
class AxialRotation:
    """Rows and columns turn half of a head's pairs each, with the same frequencies."""

    size: str
    """The key of the features of a token."""

    def names(self) -> Sequence[str]:
        return ("rope_parameters",)

    def ours(self, theirs: Theirs) -> Fields:
        parameters = theirs.get("rope_parameters") or {}
        if parameters.get("rope_type", "axial") not in ("axial", "default"):
            raise InputError(
                f'{theirs.where} has "rope_parameters": {shown(parameters)}, whose '
                '"rope_type" should be axial'
            )
        head = theirs.get(self.size, 1280) // theirs.get("num_heads", 16)
        base = float(parameters.get("rope_theta") or 10_000.0)
        sections = (max(head // 4, 1),) * 2
        return {"attention.rope": RoPEConfig(base=base, sections=sections, section_frequencies="own")}

    def theirs(self, config: VisionConfig) -> dict[str, Any]:
        rope = config.attention.rope
        if rope is None or rope.base == 10_000:
            return {}
        return {"rope_parameters": {"rope_type": "axial", "rope_theta": rope.base}}


@dataclasses.dataclass(frozen=True)
class Ratio:
    """`mlp_ratio`: hidden features of the MLP to those of a token."""

    def names(self) -> Sequence[str]:
        return ("mlp_ratio",)

    def ours(self, theirs: Theirs) -> Fields:
        return {"mlp.features": int(theirs.get("embed_dim", 1280) * theirs.get("mlp_ratio", 4))}

    def theirs(self, config: VisionConfig) -> dict[str, Any]:
        return {"mlp_ratio": config.mlp.features // config.hidden_size}


@dataclasses.dataclass(frozen=True)
class Windows:
    """`window_size` in pixels, a multiple of what becomes one token; `fullatt_block_indexes` have none."""

    def names(self) -> Sequence[str]:
        return ("window_size", "fullatt_block_indexes", "spatial_merge_size")

    def ours(self, theirs: Theirs) -> Fields:
        merge, patch = theirs.get("spatial_merge_size") or 1, theirs.get("patch_size") or 14
        whole = theirs.get("fullatt_block_indexes")
        layers = range(theirs.get("depth") or 32)
        return {
            "window": (theirs.get("window_size") or 112) // merge // patch * merge,
            "whole_layers": tuple(at for at in ((7, 15, 23, 31) if whole is None else whole) if at in layers),
        }

    def theirs(self, config: VisionConfig) -> dict[str, Any]:
        if config.window is None:
            return {}
        return {
            "window_size": config.window * config.patch_size,
            "fullatt_block_indexes": list(config.whole_layers),
        }


def _shared(size: str) -> tuple[Entry, ...]:
    return (
        UNQUANTIZED,
        Key(size, "hidden_size", 1280),
        Key("depth", "num_layers", 32, also=("num_hidden_layers",)),
        Key("num_heads", "attention.num_heads", 16, also=("num_attention_heads",)),
        Key("in_channels", "channels", 3, also=("in_chans",)),
        Key("patch_size", "patch_size", 14, also=("spatial_patch_size",)),
        Key("temporal_patch_size", "frames", 2),
        Key("initializer_range", "init_std", 0.02),
        AxialRotation(size),
        *(Constant("attention.qkv_bias", value=True), Constant("attention.output_bias", value=True)),
        *(Constant("mlp.bias", value=True), Constant("norm.epsilon", 1e-6)),
        *(Constant("patch_bias", value=False), Constant("class_tokens", 0), Constant("class_positions", 0)),
        *(Constant("position_grid", None), Constant("last_norm", None), Constant("pooling", "mean")),
    )


_QWEN2 = (
    *_shared("embed_dim"),
    Ratio(),
    Key("hidden_act", "mlp.activation", "quick_gelu", ACTIVATIONS),
)
_QWEN2_5 = (
    *_shared("hidden_size"),
    Key("intermediate_size", "mlp.features", 3420),
    Key("hidden_act", "mlp.activation", "silu", ACTIVATIONS),
    *(Constant("mlp.gated", value=True), Constant("norm.kind", "rmsnorm")),
    Windows(),
)


def block_names(config: VisionConfig) -> NameMap:
    """`blocks`: queries, keys and values in one tensor."""
    layer, ours = "blocks.{layer}", "{attention}.attention"
    parts = tuple(f"{ours}.{name}" for name in ("query", "key", "value"))
    kernels, biases = (tuple(f"{part}.{kind}" for part in parts) for kind in ("kernel", "bias"))
    rows = [
        *patch_rows(config, "patch_embed.proj"),
        Row(f"{layer}.attn.qkv.weight", kernels, "([heads] head_dim) embed -> embed heads head_dim"),
        Row(f"{layer}.attn.qkv.bias", biases, "([heads] head_dim) -> heads head_dim"),
        Row(f"{layer}.attn.proj.weight", f"{ours}.output.kernel", FROM_HEADS),
        Row(f"{layer}.attn.proj.bias", f"{ours}.output.bias"),
        *norm_rows(config.norm, f"{layer}.norm1", "{attention}.norm"),
        *norm_rows(config.norm, f"{layer}.norm2", "{mlp}.norm"),
    ]
    if config.mlp.gated:
        rows += mlp_rows(config.mlp, f"{layer}.mlp")
    else:
        rows += biased_mlp_rows(f"{layer}.mlp.fc1", f"{layer}.mlp.fc2")
    return vision_name_map(config, rows)


def _architecture(
    model_type: str, class_name: str, entries: tuple[Entry, ...], *without: str
) -> Architecture:
    return Architecture(
        model_type=model_type,
        class_name=class_name,
        config=ConfigMap(VisionConfig, entries, (*WITHOUT_MEANING, *without)),
        name_map=block_names,
        prefix="",
        canonical=canonical,
    )


# What stands behind the encoder is the projector's, which the model around it reads.
NATIVE = (
    _architecture(
        *("qwen2_vl_vision", "Qwen2VisionTransformerPretrainedModel", _QWEN2),
        *("hidden_size", "spatial_merge_size"),
    ),
    _architecture(
        *("qwen2_5_vl_vision", "Qwen2_5_VisionTransformerPretrainedModel", _QWEN2_5),
        *("out_hidden_size", "tokens_per_second"),
    ),
)
