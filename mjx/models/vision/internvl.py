"""InternVL's encoder in transformers: InternViT, of 300M parameters or 6B (Chen et al. 2024)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.architecture import ACTIVATIONS, UNQUANTIZED
from mjx.models.interop.config_map import Absent, Constant, Entry, Fields, Key, Only, Theirs, shown
from mjx.models.interop.mixer_rows import HEADS_BIAS, norm_rows, projection_rows
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.vision.config import VisionConfig
from mjx.models.vision.huggingface_names import embedding_rows, mlp_rows, vision_name_map


@dataclasses.dataclass(frozen=True)
class Sides:
    """`image_size` and `patch_size` of two sides each; of a patch they are equal."""

    def names(self) -> Sequence[str]:
        return ("image_size", "patch_size")

    def ours(self, theirs: Theirs) -> Fields:
        size, patch = _sides(theirs, "image_size", 448), _sides(theirs, "patch_size", 14)
        if patch[0] != patch[1]:
            raise InputError(
                f'{theirs.where} has "patch_size": {shown(list(patch))}, which mjx does not compute; it '
                "should be square"
            )
        grid = tuple(side // patch[0] for side in size)
        return {"image_size": size, "patch_size": patch[0], "position_grid": grid}

    def theirs(self, config: VisionConfig) -> dict[str, Any]:
        patch = config.patch_size
        size = [side * patch for side in config.position_grid or config.grid]
        return {"image_size": size, "patch_size": [patch, patch]}


def _sides(theirs: Mapping[str, Any], name: str, default: int) -> tuple[int, int]:
    found = theirs.get(name) or default
    sides = tuple(found) if isinstance(found, list | tuple) else (found, found)
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise InputError(f'"{name}": {shown(found)} should be a number of pixels, or two')
    return sides[0], sides[1]


@dataclasses.dataclass(frozen=True)
class QueryKeyNorm:
    """`use_qk_norm`: an RMSNorm over all heads of queries and of keys."""

    def names(self) -> Sequence[str]:
        return ("use_qk_norm",)

    def ours(self, theirs: Theirs) -> Fields:
        if not theirs.get("use_qk_norm"):
            return {"attention.qk_norm": None, "attention.qk_norm_over": "head"}
        return {
            "attention.qk_norm.kind": "rmsnorm",
            "attention.qk_norm.epsilon": 1e-6,
            "attention.qk_norm_over": "all_heads",
        }

    def theirs(self, config: VisionConfig) -> dict[str, Any]:
        return {"use_qk_norm": config.attention.qk_norm is not None}


@dataclasses.dataclass(frozen=True)
class Pooled:
    """`use_mean_pooling`: no norm is behind the last layer; else a LayerNorm, and the class token speaks."""

    def names(self) -> Sequence[str]:
        return ("use_mean_pooling",)

    def ours(self, theirs: Theirs) -> Fields:
        if theirs.get("use_mean_pooling") is not False:
            return {"last_norm": None, "pooling": "mean"}
        if theirs.get("norm_type", "layer_norm") != "layer_norm":
            raise InputError(
                f'{theirs.where} has "use_mean_pooling": false and "norm_type": '
                f"{shown(theirs['norm_type'])}, norms of two kinds, which mjx does not compute"
            )
        return {"last_norm": "tokens", "pooling": "class"}

    def theirs(self, config: VisionConfig) -> dict[str, Any]:
        return {"use_mean_pooling": config.pooling == "mean"}


ENTRIES: tuple[Entry, ...] = (
    UNQUANTIZED,
    Key("hidden_size", "hidden_size", 1024),
    Key("num_hidden_layers", "num_layers", 24),
    Key("num_attention_heads", "attention.num_heads", 16),
    Key("num_channels", "channels", 3),
    Key("initializer_range", "init_std", 0.02),
    Key("intermediate_size", "mlp.features", 4096),
    Key("hidden_act", "mlp.activation", "gelu", ACTIVATIONS),
    Key("attention_bias", "attention.qkv_bias", default=False),
    Key("hidden_dropout_prob", "dropout", 0.0),
    Key("attention_dropout", "attention.dropout", 0.0),
    Key("norm_type", "norm.kind", "layer_norm", {"layer_norm": "layernorm", "rms_norm": "rmsnorm"}),
    Key("layer_norm_eps", "norm.epsilon", 1e-6),
    Key("layer_scale_init_value", "layer_scale", 0.1),
    Key("use_mask_token", "mask_token", default=False),
    Sides(),
    QueryKeyNorm(),
    Pooled(),
    Only("use_absolute_position_embeddings", value=True),
    Absent(("projection_dropout",)),
    Constant("attention.output_bias", value=True),
    Constant("mlp.bias", value=True),
)


def internvl_names(config: VisionConfig, prefix: str) -> NameMap:
    """ViT's embeddings, and layers with factors on what they add."""
    layer, attention = f"{prefix}encoder.layer.{{layer}}", "{attention}.attention"
    rows = [
        *embedding_rows(config, prefix),
        *projection_rows(
            f"{layer}.attention",
            attention,
            ("q_proj", "k_proj", "v_proj", "projection_layer"),
            bias=config.attention.qkv_bias,
            output_bias=True,
        ),
        *norm_rows(config.norm, f"{layer}.layernorm_before", "{attention}.norm"),
        *norm_rows(config.norm, f"{layer}.layernorm_after", "{mlp}.norm"),
        Row(f"{layer}.lambda_1", "{attention}.output_gain"),
        Row(f"{layer}.lambda_2", "{mlp}.output_gain"),
        *mlp_rows(f"{layer}.mlp.fc1", f"{layer}.mlp.fc2"),
    ]
    if config.attention.qk_norm is not None:
        for name in ("query", "key"):
            rows.append(
                Row(f"{layer}.attention.{name[0]}_norm.weight", f"{attention}.{name}_norm.scale", HEADS_BIAS)
            )
    if config.last_norm is not None:
        rows += norm_rows(config.norm, f"{prefix}layernorm", "final_norm")
    return vision_name_map(config, rows)
