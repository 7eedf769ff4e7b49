"""Megatron-LM's arguments of a GPT ↔ our config."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.config_keys import AttentionKey, shortest, spread, window_layers
from mjx.models.interop import megatron_moe
from mjx.models.interop.config_map import Absent, ConfigMap, Fields, Key, Theirs, shown
from mjx.models.interop.megatron_keys import (
    Activation,
    Biases,
    ComputeDtype,
    Features,
    GateOptions,
    QueryGroups,
    Recomputation,
    RotaryScaling,
    Vocabulary,
    layer_list,
)


@dataclasses.dataclass(frozen=True)
class _Positions:
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
        if kind == "none":
            return {"max_positions": None, "attention.rope": None}
        if kind != "learned_absolute":
            raise InputError(
                f'{theirs.where} has "position_embedding_type": {shown(kind)}; a GPT of mjx has '
                "learned_absolute, rope, yarn or none"
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

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        rope = config.attention.rope
        if config.max_positions is not None:
            kind = "learned_absolute"
        elif rope is None:
            kind = "none"
        else:
            kind = "yarn" if rope.scaling is not None and rope.scaling.kind == "yarn" else "rope"
        return {"position_embedding_type": kind, "max_position_embeddings": config.max_positions}


@dataclasses.dataclass(frozen=True)
class _QueryKeyNorm:
    """`qk_layernorm`: a norm of the same kind as all the others."""

    def names(self) -> Sequence[str]:
        return ("qk_layernorm",)

    def ours(self, theirs: Theirs) -> Fields:
        return {} if theirs.get("qk_layernorm") else {"attention.qk_norm": None}

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        return {"qk_layernorm": config.attention.qk_norm is not None}


@dataclasses.dataclass(frozen=True)
class _Window:
    """`window_size`, the tokens before and after that are seen, and the layers that have no window."""

    def names(self) -> Sequence[str]:
        return ("window_size", "window_attn_skip_freq")

    def ours(self, theirs: Theirs) -> Fields:
        size = theirs.get("window_size")
        if isinstance(size, str):  # as on a command line
            numbers = size.strip("()[] ").replace(" ", "").split(",")
            size = [int(number) for number in numbers if number]
        if not size or size[0] < 0:
            return {"attention.window": None, "window_pattern": (True,)}
        if len(size) != 2 or size[1] != 0:
            raise InputError(
                f'{theirs.where} has "window_size": {shown(theirs["window_size"])}; a GPT looks back alone, '
                "so that it should be [tokens, 0]"
            )
        skipped = layer_list(theirs, "window_attn_skip_freq")
        if isinstance(skipped, int):
            skipped = (True,) * (skipped - 1) + (False,)
        pattern = (True,) if skipped is None else shortest(skipped)
        return {"attention.window": size[0] + 1, "window_pattern": pattern}

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        window, layers = config.attention.window, window_layers(config)
        if window is None or not any(layers):
            return {"window_size": None, "window_attn_skip_freq": None}
        return {
            "window_size": [window - 1, 0],
            "window_attn_skip_freq": None if all(layers) else [int(kept) for kept in layers],
        }


@dataclasses.dataclass(frozen=True)
class _LayersWithoutRotation:
    """`no_rope_freq`: every so many layers one without, or a list in which 1 is one without."""

    def names(self) -> Sequence[str]:
        return ("no_rope_freq",)

    def ours(self, theirs: Theirs) -> Fields:
        without = layer_list(theirs, "no_rope_freq")
        if isinstance(without, int):
            without = (False,) * (without - 1) + (True,)
        return {"rope_pattern": shortest(tuple(not skipped for skipped in without)) if without else (True,)}

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        layers = spread(config.rope_pattern, config.num_layers)
        return {"no_rope_freq": None if all(layers) else [int(not kept) for kept in layers]}


_OTHER_FAMILIES = (
    *("hybrid_layer_pattern", "is_hybrid_model", "hybrid_attention_ratio", "retro_add_retriever"),
    *("decoder_seq_length", "tokentypes", "num_tokentypes", "vision_pretraining"),
)
"""Arguments that only models of other kinds have."""


def describes(theirs: Mapping[str, Any]) -> bool:
    """Whether arguments are of this family, be the model one that we can build or not."""
    relative = theirs.get("position_embedding_type") == "relative"
    program = re.search("bert|t5|mamba|hybrid|retro|vision|vlm|ict|mimo", theirs.get("program") or "")
    return not (relative or program or any(theirs.get(name) for name in _OTHER_FAMILIES))


SETTINGS = ConfigMap(
    GPTConfig,
    (
        Key("num_layers", "num_layers"),
        Key("hidden_size", "hidden_size"),
        Features(),
        Key("num_attention_heads", "attention.num_heads"),
        QueryGroups(),
        AttentionKey("kv_channels", "attention.head_dim", None),
        Vocabulary(),
        Key("untie_embeddings_and_output_weights", "tie_embeddings", False, {False: True, True: False}),
        Biases(),
        Activation(),
        GateOptions(),
        *megatron_moe.settings(),
        Key(
            *("normalization", ("norm.kind", "attention.qk_norm.kind"), "LayerNorm"),
            {"LayerNorm": "layernorm", "RMSNorm": "rmsnorm"},
        ),
        Key("norm_epsilon", ("norm.epsilon", "attention.qk_norm.epsilon"), 1e-5),
        Key("apply_layernorm_1p", ("norm.zero_centered", "attention.qk_norm.zero_centered"), False),
        _QueryKeyNorm(),
        _Positions(),
        Key("rotary_base", "attention.rope.base", 10_000),
        Key("rotary_percent", "attention.rope.percent", 1.0),
        Key(
            "rotary_interleaved",
            "attention.rope.layout",
            False,
            {False: "halves", True: "interleaved"},
        ),
        RotaryScaling(),
        _LayersWithoutRotation(),
        _Window(),
        Key("softmax_type", "attention.softmax", "vanilla"),
        Key("softmax_scale", "attention.scale", None),
        Key("attention_output_gate", "attention.output_gate", False),
        Key("attn_logit_softcapping", "attention.soft_cap", None),
        Key("hidden_dropout", "dropout", 0.1),
        Key("attention_dropout", "attention.dropout", 0.1),
        Key("init_method_std", "init_std", 0.02),
        ComputeDtype(),
        Recomputation(),
        Absent(("multi_latent_attention",)),
        Absent(("mtp_num_layers",)),
        Absent(("heterogeneous_layers_config_path", "heterogeneous_layers_config_encoded_json")),
        Absent(("experimental_attention_variant", "linear_attention_freq")),
        Absent(("qk_l2_norm",)),
        Absent(("apply_residual_connection_post_layernorm",)),
        Absent(("use_mup",)),
        Absent(("enable_mhc_connections", "enable_hyper_connections")),
        Absent(("spec",)),
    ),
    closed=False,
)
