"""RETRO as Megatron-Core 0.12 had it: `RetroModel`'s names for parameters, and its settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.canonical import canonical_attention, training_defaults
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
from mjx.models.interop.megatron.rows import cross_attention_rows, embedding_rows, head_rows, layer_rows
from mjx.models.interop.mixer_rows import norm_rows
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.stack_map import stack_name_map
from mjx.models.retro.config import RetroConfig


def megatron_name_map(config: RetroConfig) -> NameMap:
    """Megatron's tensors (those of the local layer spec) ↔ our parameters, for this model.

    Raises:
        InputError: Megatron-Core had no such model.
    """
    if config.first_look is not None and config.first_look != _first_look(config.num_layers):
        raise InputError(
            f"model.first_look = {config.first_look} is not in Megatron-Core, whose first of "
            f"{config.num_layers} layers that looks at neighbours is {_first_look(config.num_layers)}"
        )
    if config.looks_every != 3:
        raise InputError(
            f"model.looks_every = {config.looks_every} is not in Megatron-Core, which has only 3"
        )
    if config.last_norm:
        raise InputError("model.last_norm = true is not in Megatron-Core's RETRO")
    layers = [layer for layer, _ in config.layers]
    encoder = [max(at - 1, 0) // 2 for at in range(len(config.patterns["encoder"]))]
    numberings = {
        "front": layers[: config.sublayers_in_front],
        "encoder": encoder,
        config.stack_name: layers[config.sublayers_in_front :],
    }
    return stack_name_map(config, _rows(config), numberings)


def _first_look(num_layers: int) -> int:
    return 6 if num_layers <= 15 else 9


def _rows(config: RetroConfig) -> list[Row]:
    attention, look = config.attention.resolve(config.hidden_size), config.chunked_attention
    layer = "decoder.layers.{layer}"
    return [
        *embedding_rows(config),
        *layer_rows(layer, config.norm, attention, mlp=config.mlp, stack="front_"),
        *layer_rows(layer, config.norm, attention, mlp=config.mlp),
        *norm_rows(config.norm, f"{layer}.pre_cross_attn_layernorm", "{chunked_attention}.norm"),
        *cross_attention_rows(look, f"{layer}.cross_attention.attn", "{chunked_attention}.chunked_attention"),
        *(row for number in range(config.encoder_layers) for row in _encoder_rows(config, number)),
        *head_rows(config),
    ]


def _encoder_rows(config: RetroConfig, number: int) -> list[Row]:
    """Of one layer of the encoder, which is a part of the first look; its own look at a chunk, and the norm
    of neighbours behind it, are modules around others."""
    theirs = f"decoder.layers.{config.looking[0] - 1}.cross_attention.encoder.layers.{number}"
    attention = config.attention.resolve(config.hidden_size)
    looks = config.cross_attention if number == 0 else None
    rows = layer_rows(theirs, config.norm, attention, looks, config.mlp, stack="encoder_")

    def called(name: str) -> str:
        if number:
            return name
        name = name.replace(f"{theirs}.cross_attention.", f"{theirs}.cross_attention.attn.")
        return name.replace(f"{theirs}.pre_mlp_layernorm.", f"{theirs}.pre_mlp_layernorm.norm.")

    return [dataclasses.replace(row, theirs=called(row.theirs), layer=number) for row in rows]


@dataclasses.dataclass(frozen=True)
class _Retrieved:
    """`retro_num_retrieved_chunks` of `retro_chunk_length` tokens each."""

    def names(self) -> Sequence[str]:
        return ("retro_chunk_length", "retro_num_retrieved_chunks")

    def ours(self, theirs: Theirs) -> Fields:
        length = theirs.get("retro_chunk_length") or 64
        return {
            "chunk_length": length,
            "retrieved_length": length * (theirs.get("retro_num_retrieved_chunks") or 2),
        }

    def theirs(self, config: RetroConfig) -> dict[str, Any]:
        if config.retrieved_length % config.chunk_length:
            raise InputError(
                f"model.retrieved_length = {config.retrieved_length} is in Megatron-Core a multiple of "
                f"model.chunk_length = {config.chunk_length}"
            )
        return {
            "retro_chunk_length": config.chunk_length,
            "retro_num_retrieved_chunks": config.retrieved_length // config.chunk_length,
        }


def describes(theirs: Mapping[str, Any]) -> bool:
    """Whether arguments are of this family, be the model one that we can build or not."""
    return bool(theirs.get("retro_add_retriever")) or theirs.get("retro_encoder_num_layers") is not None


def canonical(config: RetroConfig) -> RetroConfig:
    """One spelling for all configs of the same model, without what only training chooses."""
    attention = canonical_attention(config.attention, config.hidden_size)
    return dataclasses.replace(config, attention=attention, **training_defaults(RetroConfig))


SETTINGS = ConfigMap(
    RetroConfig,
    (
        Key("num_layers", "num_layers"),
        Key("hidden_size", "hidden_size"),
        Features(),
        Vocabulary(),
        Key("untie_embeddings_and_output_weights", "tie_embeddings", False, {False: True, True: False}),
        Biases(),
        Activation(),
        GateOptions(),
        *megatron_attention.settings(),
        _Retrieved(),
        Key("retro_num_neighbors", "neighbours", 2),
        Key("retro_encoder_num_layers", "encoder_layers", 2, also=("retro_encoder_layers",)),
        Key("retro_encoder_hidden_dropout", "encoder_dropout", 0.1),
        Key("retro_encoder_attention_dropout", "encoder_attention_dropout", 0.1),
        Key("hidden_dropout", "dropout", 0.1),
        Key("init_method_std", "init_std", 0.02),
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
