"""Megatron-LM's arguments of a GPT ↔ our config."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.config_keys import window_layers
from mjx.models.interop.canonical import shortest, spread
from mjx.models.interop.config_map import Absent, ConfigMap, Fields, Key, Theirs, shown
from mjx.models.interop.megatron import attention as megatron_attention
from mjx.models.interop.megatron import moe as megatron_moe
from mjx.models.interop.megatron.keys import (
    Activation,
    Biases,
    ComputeDtype,
    Features,
    GateOptions,
    Recomputation,
    Vocabulary,
    layer_list,
)


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
    "retro_encoder_num_layers",
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
        Vocabulary(),
        Key("untie_embeddings_and_output_weights", "tie_embeddings", False, {False: True, True: False}),
        Biases(),
        Activation(),
        GateOptions(),
        *megatron_moe.settings(megatron_moe.PeriodicLayers()),
        *megatron_attention.settings(),
        _LayersWithoutRotation(),
        _Window(),
        Key("hidden_dropout", "dropout", 0.1),
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
