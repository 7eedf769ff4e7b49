"""Attention as Megatron-Core has it: Megatron-LM's arguments, and the names of tensors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.interop.config_map import REQUIRED, Entry, Fields, Key, ResolvedKey, Theirs, get, shown
from mjx.models.interop.megatron.keys import QueryGroups, RotaryScaling
from mjx.models.interop.mixer_rows import norm_rows
from mjx.models.interop.name_map import Row

NORMS = {"LayerNorm": "layernorm", "RMSNorm": "rmsnorm"}
"""`normalization` → a norm's kind."""


def settings(*, everywhere: bool = True) -> tuple[Entry, ...]:
    """The entries of a config map, for a model with `norm`, and attention in every layer or maybe in none."""
    return (
        Key("num_attention_heads", "attention.num_heads", REQUIRED if everywhere else None),
        QueryGroups(),
        ResolvedKey("kv_channels", "attention.head_dim", None),
        Key(
            *("normalization", ("norm.kind", "attention.qk_norm.kind"), "LayerNorm"),
            NORMS,
        ),
        Key("norm_epsilon", ("norm.epsilon", "attention.qk_norm.epsilon"), 1e-5),
        Key("apply_layernorm_1p", ("norm.zero_centered", "attention.qk_norm.zero_centered"), False),
        QueryKeyNorm(),
        Positions(),
        RelativePositions(),
        Key("rotary_base", "attention.rope.base", 10_000),
        Key("rotary_percent", "attention.rope.percent", 1.0),
        Key(
            "rotary_interleaved",
            "attention.rope.layout",
            False,
            {False: "halves", True: "interleaved"},
        ),
        RotaryScaling(),
        Key("softmax_type", "attention.softmax", "vanilla"),
        Key("softmax_scale", "attention.scale", None),
        Key("attention_output_gate", "attention.output_gate", False),
        Key("attn_logit_softcapping", "attention.soft_cap", None),
        Key("attention_dropout", "attention.dropout", 0.1),
    )


@dataclasses.dataclass(frozen=True)
class Positions:
    """`position_embedding_type`: a table of learned ones, rotations, or none."""

    def names(self) -> Sequence[str]:
        return (
            *("position_embedding_type", "use_rotary_position_embeddings", "add_position_embedding"),
            "max_position_embeddings",
        )

    def ours(self, theirs: Theirs) -> Fields:
        kind = theirs.get("position_embedding_type") or "learned_absolute"
        if theirs.get("use_rotary_position_embeddings"):
            kind = "rope"
        if kind in ("rope", "yarn"):  # the parts of attention.rope have keys of their own
            return {"max_positions": None}
        if kind in ("none", "relative"):
            return {"max_positions": None, "attention.rope": None}
        if kind != "learned_absolute":
            raise InputError(
                f'{theirs.where} has "position_embedding_type": {shown(kind)}; known are '
                "learned_absolute, rope, yarn, relative and none"
            )
        if theirs.get("add_position_embedding") is False:
            raise InputError(
                f'{theirs.where} has "add_position_embedding": false, the old way to say '
                '"position_embedding_type": "none"'
            )
        longest = theirs.get("max_position_embeddings")
        if longest is None:
            raise InputError(
                f'{theirs.where} has no "max_position_embeddings", the rows of learned positions'
            )
        return {"max_positions": longest, "attention.rope": None}

    def theirs(self, config: Any) -> dict[str, Any]:
        rope = get(config, "attention.rope")
        if config.max_positions is not None:
            kind = "learned_absolute"
        elif rope is None:
            kind = "none" if get(config, "attention.relative_bias") is None else "relative"
        else:
            kind = "yarn" if rope.scaling is not None and rope.scaling.kind == "yarn" else "rope"
        return {"position_embedding_type": kind, "max_position_embeddings": config.max_positions}


@dataclasses.dataclass(frozen=True)
class RelativePositions:
    """`relative_attention_num_buckets` and `…_max_distance`, where positions are relative."""

    def names(self) -> Sequence[str]:
        return ("relative_attention_num_buckets", "relative_attention_max_distance")

    def ours(self, theirs: Theirs) -> Fields:
        if theirs.get("position_embedding_type") != "relative":
            return {"attention.relative_bias": None}
        return {
            "attention.relative_bias.buckets": theirs.get("relative_attention_num_buckets") or 32,
            "attention.relative_bias.max_distance": theirs.get("relative_attention_max_distance") or 128,
        }

    def theirs(self, config: Any) -> dict[str, Any]:
        return {
            "relative_attention_num_buckets": get(config, "attention.relative_bias.buckets"),
            "relative_attention_max_distance": get(config, "attention.relative_bias.max_distance"),
        }


@dataclasses.dataclass(frozen=True)
class QueryKeyNorm:
    """`qk_layernorm`: a norm of the same kind as all the others."""

    def names(self) -> Sequence[str]:
        return ("qk_layernorm",)

    def ours(self, theirs: Theirs) -> Fields:
        return {} if theirs.get("qk_layernorm") else {"attention.qk_norm": None}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {"qk_layernorm": get(config, "attention.qk_norm") is not None}


def attention_rows(attention: AttentionConfig, theirs: str, ours: str = "{attention}.attention") -> list[Row]:
    """`linear_qkv`, `linear_proj`, norms of queries and keys, and sinks, of a resolved config."""
    # The queries of a key/value head (and their gates), its key and its value lie together.
    projections = ("query", "gate", "key", "value") if attention.output_gate else ("query", "key", "value")
    groups = {"group": attention.dims[1]}
    rows = [
        Row(
            f"{theirs}.linear_qkv.weight",
            tuple(f"{ours}.{name}.kernel" for name in projections),
            "(group [heads] head_dim) embed -> embed (group heads) head_dim",
            groups,
        )
    ]
    if attention.qkv_bias:
        rows.append(
            Row(
                f"{theirs}.linear_qkv.bias",
                tuple(f"{ours}.{name}.bias" for name in projections),
                "(group [heads] head_dim) -> (group heads) head_dim",
                groups,
            )
        )
    if attention.qk_norm is not None:
        for name in ("query", "key"):
            norm = f"{ours}.{name}_norm"
            rows += norm_rows(attention.qk_norm, f"{theirs}.{name[0]}_layernorm", norm)
    if attention.softmax == "learnable":
        rows.append(Row(f"{theirs}.core_attention.softmax_offset", f"{ours}.sinks"))
    rows.append(
        Row(
            f"{theirs}.linear_proj.weight",
            f"{ours}.output.kernel",
            "embed (heads head_dim) -> heads head_dim embed",
        )
    )
    if attention.output_bias:
        rows.append(Row(f"{theirs}.linear_proj.bias", f"{ours}.output.bias"))
    return rows
