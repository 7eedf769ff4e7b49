"""T5 as Megatron-Core has it: `T5Model`'s names for parameters, and Megatron-LM's for settings."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.config_map import Absent, ConfigMap, Fields, Key, Theirs
from mjx.models.interop.megatron import attention as megatron_attention
from mjx.models.interop.megatron.keys import (
    Activation,
    Biases,
    ComputeDtype,
    Features,
    GateOptions,
    Recomputation,
    Vocabulary,
)
from mjx.models.interop.megatron.model import MegatronModel
from mjx.models.interop.megatron.rows import embedding_rows, head_rows, layer_rows
from mjx.models.interop.mixer_rows import norm_rows
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.stack_map import in_pairs, stack_name_map
from mjx.models.t5.config import T5Config
from mjx.models.t5.config_keys import canonical


def megatron_name_map(config: T5Config) -> NameMap:
    """Megatron's tensors (those of the local layer spec) ↔ our parameters, for this model.

    Raises:
        InputError: Megatron-Core has no such model.
    """
    refused = {
        f"model.norm_placement = {config.norm_placement}": config.norm_placement != "input",
        "model.embedding_norm": config.embedding_norm is not None,
        "model.separate_positions = true": config.separate_positions,
        "model.first_position": config.first_position != 0,
        "model.logit_scale": config.logit_scale != 1,
        "model.head_transform": config.head_transform is not None,
        f"model.head_bias = {config.head_bias} with model.tie_embeddings = {config.tie_embeddings}": (
            config.head_bias != config.tie_embeddings
        ),
        "model.attention.qk_norm_over = all_heads": config.attention.qk_norm_over != "head",
        "model.attention.qk_norm": config.attention.qk_norm is not None,
    }
    for name, holds in refused.items():
        if holds:
            raise InputError(f"{name} is not in Megatron-Core's T5")
    numberings = {
        "encoder": in_pairs(len(config.encoder_pattern)),
        "decoder": [at // 3 for at in range(len(config.pattern))],
    }
    return stack_name_map(config, _rows(config), numberings)


def _rows(config: T5Config) -> list[Row]:
    attention = config.attention.resolve(config.hidden_size)
    of_encoder = {"attention": attention, "mlp": config.mlp, "stack": "encoder_"}
    of_decoder = {"attention": attention, "cross_attention": config.cross_attention, "mlp": config.mlp}
    rows = [
        *embedding_rows(config),
        *layer_rows("encoder.layers.{layer}", config.norm, **of_encoder),
        *norm_rows(config.norm, "encoder.final_layernorm", "encoder_norm"),
        *layer_rows("decoder.layers.{layer}", config.norm, **of_decoder),
        *norm_rows(config.norm, "decoder.final_layernorm", "final_norm"),
        *head_rows(config, "lm_head.output_layer"),
    ]
    if attention.relative_bias is not None:
        rows += [
            Row(
                f"{stack}_relative_pos_emb.relative_attention_bias.weight",
                f"{stack}.shared.relative_bias.weight",
            )
            for stack in ("encoder", "decoder")
        ]
    return rows


@dataclasses.dataclass(frozen=True)
class _Layers:
    """`encoder_num_layers` and `decoder_num_layers`, either of which `num_layers` stands for."""

    def names(self) -> Sequence[str]:
        return ("num_layers", "encoder_num_layers", "decoder_num_layers")

    def ours(self, theirs: Theirs) -> Fields:
        encoder = theirs.get("encoder_num_layers") or theirs.get("num_layers")
        decoder = theirs.get("decoder_num_layers") or theirs.get("num_layers") or encoder
        if encoder is None or decoder is None:
            raise InputError(f'{theirs.where} has neither "num_layers" nor "encoder_num_layers"')
        return {"num_layers": decoder, "encoder_layers": None if encoder == decoder else encoder}

    def theirs(self, config: T5Config) -> dict[str, Any]:
        encoder = config.encoder_layers or config.num_layers
        return {
            "num_layers": encoder,
            "encoder_num_layers": encoder,
            "decoder_num_layers": config.num_layers,
        }


@dataclasses.dataclass(frozen=True)
class _Head:
    """Tied to the token table it has a bias, else it has none."""

    def names(self) -> Sequence[str]:
        return ("untie_embeddings_and_output_weights",)

    def ours(self, theirs: Theirs) -> Fields:
        tied = not theirs.get("untie_embeddings_and_output_weights")
        return {"tie_embeddings": tied, "head_bias": tied}

    def theirs(self, config: T5Config) -> dict[str, Any]:
        return {"untie_embeddings_and_output_weights": not config.tie_embeddings}


def describes(theirs: Mapping[str, Any]) -> bool:
    """Whether arguments are of this family, be the model one that we can build or not."""
    program = re.search("t5", theirs.get("program") or "")
    return bool(program) or any(theirs.get(name) for name in ("decoder_seq_length", "decoder_num_layers"))


SETTINGS = ConfigMap(
    T5Config,
    (
        _Layers(),
        Key("hidden_size", "hidden_size"),
        Features(),
        Vocabulary(),
        _Head(),
        Biases(),
        Activation(),
        GateOptions(),
        *megatron_attention.settings(),
        Key("hidden_dropout", "dropout", 0.1),
        Key("init_method_std", "init_std", 0.02),
        ComputeDtype(),
        Recomputation(),
        Absent(("num_experts",)),
        Absent(("apply_residual_connection_post_layernorm",)),
        Absent(("multi_latent_attention",)),
    ),
    closed=False,
)

MEGATRON = MegatronModel(
    name_map=megatron_name_map, settings=SETTINGS, describes=describes, canonical=canonical
)
