"""How Hugging Face's vision transformers name their tensors, and how these lie in ours."""

import re
from collections.abc import Mapping, Sequence

from mjx.models.interop.mixer_rows import (
    FROM_HEADS,
    HEADS_BIAS,
    NARROW,
    NUMBERED_POSITIONS,
    TO_HEADS,
    WIDE,
    fc_rows,
    norm_rows,
    tower_rows,
)
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.stack_map import in_pairs, stack_name_map
from mjx.models.vision.config import VisionConfig

_ATTENTION = "{attention}.attention"
_CLASSES = "classes latent -> latent classes"


def vit_names(config: VisionConfig, prefix: str) -> NameMap:
    """ViT's: BERT's layers with a norm in front."""
    layer = f"{prefix}encoder.layer.{{layer}}"
    rows = [
        *embedding_rows(config, prefix),
        *_dense_attention_rows(config, f"{layer}.attention"),
        *norm_rows(config.norm, f"{layer}.layernorm_before", "{attention}.norm"),
        *norm_rows(config.norm, f"{layer}.layernorm_after", "{mlp}.norm"),
        *mlp_rows(f"{layer}.intermediate.dense", f"{layer}.output.dense"),
        *norm_rows(config.norm, f"{prefix}layernorm", "final_norm"),
        *_classifier_rows(config),
    ]
    if config.pooler:
        rows.append(Row(f"{prefix}pooler.dense.weight", "pooler.kernel", "embed latent -> latent embed"))
        rows.append(Row(f"{prefix}pooler.dense.bias", "pooler.bias"))
    other = () if config.pooler else (rf"{prefix}pooler\.dense\.(weight|bias)",)
    return vision_name_map(config, rows, ignored=other)


def dinov2_names(config: VisionConfig, prefix: str) -> NameMap:
    """DINOv2's, with registers or without."""
    layer = f"{prefix}encoder.layer.{{layer}}"
    rows = [
        *embedding_rows(config, prefix),
        *_dense_attention_rows(config, f"{layer}.attention"),
        *norm_rows(config.norm, f"{layer}.norm1", "{attention}.norm"),
        *norm_rows(config.norm, f"{layer}.norm2", "{mlp}.norm"),
        Row(f"{layer}.layer_scale1.lambda1", "{attention}.output_gain"),
        Row(f"{layer}.layer_scale2.lambda1", "{mlp}.output_gain"),
        *norm_rows(config.norm, f"{prefix}layernorm", "final_norm"),
        *_classifier_rows(config),
    ]
    if config.mlp.gated:
        parts = ("{mlp}.mlp.gate", "{mlp}.mlp.up")
        kernels, biases = (tuple(f"{part}.{kind}" for part in parts) for kind in ("kernel", "bias"))
        rows += [
            Row(f"{layer}.mlp.weights_in.weight", kernels, "[mlp] embed -> embed mlp"),
            Row(f"{layer}.mlp.weights_in.bias", biases, "[mlp] -> mlp"),
            Row(f"{layer}.mlp.weights_out.weight", "{mlp}.mlp.down.kernel", NARROW),
            Row(f"{layer}.mlp.weights_out.bias", "{mlp}.mlp.down.bias"),
        ]
    else:
        rows += fc_rows(f"{layer}.mlp")
    return vision_name_map(config, rows)


def clip_names(config: VisionConfig, prefix: str) -> NameMap:
    """CLIP's and SigLIP's."""
    return vision_name_map(
        config, [*clip_rows(config, prefix), *_classifier_rows(config)], ignored=clip_ignored(prefix)
    )


def clip_ignored(prefix: str) -> tuple[str, ...]:
    """Numbers of positions, which older versions saved."""
    return (f"{re.escape(prefix)}{NUMBERED_POSITIONS}",)


def clip_rows(config: VisionConfig, prefix: str) -> list[Row]:
    """Of an encoder whose tensors are under `prefix`, without what a model around it adds."""
    embeddings = f"{prefix}embeddings"
    rows = [
        *patch_rows(config, f"{embeddings}.patch_embedding"),
        Row(f"{embeddings}.position_embedding.weight", "positions"),
        *tower_rows(config.norm, f"{prefix}encoder"),
    ]
    if config.class_tokens:
        rows.append(Row(f"{embeddings}.class_embedding", "class_tokens", "embed -> 1 embed"))
    if config.embedding_norm is not None:
        rows += norm_rows(config.embedding_norm, f"{prefix}pre_layrnorm", "embedding_norm")
    if config.last_norm is not None:
        rows += norm_rows(config.norm, f"{prefix}post_layernorm", "final_norm")
    if config.pooling == "attention":
        rows += _pooling_rows(config, f"{prefix}head")
    return rows


def patch_rows(config: VisionConfig, theirs: str) -> list[Row]:
    """The convolution that makes a token of a patch."""
    sizes = {"channels": config.channels, "height": config.patch_size, "width": config.patch_size}
    layout = "embed channels height width -> (channels height width) embed"
    if config.frames > 1:
        sizes["frames"] = config.frames
        layout = "embed channels frames height width -> (channels frames height width) embed"
    rows = [Row(f"{theirs}.weight", "patches.kernel", layout, sizes), Row(f"{theirs}.bias", "patches.bias")]
    return rows[: 1 + config.patch_bias]


def mlp_rows(wide: str, narrow: str) -> list[Row]:
    """Of two layers with biases."""
    return [
        Row(f"{wide}.weight", "{mlp}.mlp.up.kernel", WIDE),
        Row(f"{wide}.bias", "{mlp}.mlp.up.bias"),
        Row(f"{narrow}.weight", "{mlp}.mlp.down.kernel", NARROW),
        Row(f"{narrow}.bias", "{mlp}.mlp.down.bias"),
    ]


def vision_name_map(
    config: VisionConfig,
    rows: Sequence[Row],
    *,
    copies: Mapping[str, str] | None = None,
    ignored: Sequence[str] = (),
) -> NameMap:
    """Attention and the MLP behind it are one layer."""
    numbering = in_pairs(len(config.pattern))
    return stack_name_map(config, rows, numbering, copies=copies, ignored=ignored)


def embedding_rows(config: VisionConfig, prefix: str) -> list[Row]:
    """ViT's and DINOv2's: tables with an axis for the batch."""
    embeddings = f"{prefix}embeddings"
    rows = [
        *patch_rows(config, f"{embeddings}.patch_embeddings.projection"),
        Row(f"{embeddings}.position_embeddings", "positions", "1 positions embed -> positions embed"),
    ]
    tables = {"cls_token": "class_tokens", "register_tokens": "registers", "mask_token": "mask_token"}
    layouts = dict.fromkeys(tables.values(), "1 positions embed -> positions embed")
    layouts["mask_token"] = "1 embed -> embed"
    for theirs, ours in tables.items():
        if getattr(config, ours):
            rows.append(Row(f"{embeddings}.{theirs}", ours, layouts[ours]))
    return rows


def _dense_attention_rows(config: VisionConfig, theirs: str) -> list[Row]:
    """`attention.query`, `.key`, `.value`, and `output.dense`."""
    rows = []
    for name in ("query", "key", "value"):
        rows.append(Row(f"{theirs}.attention.{name}.weight", f"{_ATTENTION}.{name}.kernel", TO_HEADS))
        if config.attention.qkv_bias:
            rows.append(Row(f"{theirs}.attention.{name}.bias", f"{_ATTENTION}.{name}.bias", HEADS_BIAS))
    return [
        *rows,
        Row(f"{theirs}.output.dense.weight", f"{_ATTENTION}.output.kernel", FROM_HEADS),
        Row(f"{theirs}.output.dense.bias", f"{_ATTENTION}.output.bias"),
    ]


def _pooling_rows(config: VisionConfig, theirs: str) -> list[Row]:
    """SigLIP's head: queries, keys and values in one tensor."""
    parts = ("pooling.query", "pooling.key", "pooling.value")
    kernels, biases = (tuple(f"{part}.{kind}" for part in parts) for kind in ("kernel", "bias"))
    rows = [
        Row(f"{theirs}.probe", "pooling.probe", "1 1 embed -> embed"),
        Row(
            f"{theirs}.attention.in_proj_weight", kernels, "([heads] head_dim) embed -> embed heads head_dim"
        ),
        Row(f"{theirs}.attention.in_proj_bias", biases, "([heads] head_dim) -> heads head_dim"),
        Row(f"{theirs}.attention.out_proj.weight", "pooling.output.kernel", FROM_HEADS),
        Row(f"{theirs}.attention.out_proj.bias", "pooling.output.bias"),
        *norm_rows(config.norm, f"{theirs}.layernorm", "pooling.norm"),
    ]
    return rows + fc_rows(f"{theirs}.mlp", "pooling.mlp")


def _classifier_rows(config: VisionConfig) -> list[Row]:
    if config.classes is None:
        return []
    kernel = "classes embed -> embed classes" if config.pooler else _CLASSES
    return [Row("classifier.weight", "classifier.kernel", kernel), Row("classifier.bias", "classifier.bias")]
