"""BERT as Megatron-Core has it: `BertModel`'s names for parameters, and Megatron-LM's for settings."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.bert.config import BertConfig
from mjx.models.bert.config_keys import canonical
from mjx.models.interop.config_map import Absent, ConfigMap, Constant, Fields, Key, Theirs
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


def megatron_name_map(config: BertConfig) -> NameMap:
    """Megatron's tensors (those of the local layer spec) ↔ our parameters, for this model.

    Raises:
        InputError: Megatron-Core has no such model.
    """
    refused = {
        f"model.norm_placement = {config.norm_placement}": config.norm_placement not in ("input", "stream"),
        "model.first_norm = false": not config.first_norm,
        "model.embedding_norm": config.embedding_norm is not None,
        "model.head_transform = null": config.head_transform is None,
        "model.head_bias = false": not config.head_bias,
        "model.classes": config.classes is not None,
        "model.pooling = mean": config.pooler and config.pooling != "first",
        "model.pooler without model.sentence_head": config.pooler != config.sentence_head,
        "model.attention.qk_norm_over = all_heads": config.attention.qk_norm_over != "head",
    }
    for name, holds in refused.items():
        if holds:
            raise InputError(f"{name} is not in Megatron-Core's BERT")
    numbering = in_pairs(len(config.pattern))
    return stack_name_map(config, _rows(config), numbering)


def _rows(config: BertConfig) -> list[Row]:
    transform = config.head_transform
    assert transform is not None
    attention = config.attention.resolve(config.hidden_size)
    rows = [
        *embedding_rows(config),
        *layer_rows("encoder.layers.{layer}", config.norm, attention, mlp=config.mlp),
        *norm_rows(config.norm, "encoder.final_layernorm", "final_norm"),
        Row("lm_head.dense.weight", "head_transform.dense.kernel", "latent embed -> embed latent"),
        Row("lm_head.dense.bias", "head_transform.dense.bias"),
        *norm_rows(transform.norm, "lm_head.layer_norm", "head_transform.norm"),
        *head_rows(config),
    ]
    if config.sentence_head:
        rows += [
            Row("pooler.dense.weight", "pooler.kernel", "latent embed -> embed latent"),
            Row("pooler.dense.bias", "pooler.bias"),
            Row("binary_head.weight", "sentence_head.kernel", "classes latent -> latent classes"),
            Row("binary_head.bias", "sentence_head.bias"),
        ]
    return rows


@dataclasses.dataclass(frozen=True)
class _BinaryHead:
    """`bert_binary_head`, with which go the pooler and two types of tokens."""

    def names(self) -> Sequence[str]:
        return ("bert_binary_head", "add_binary_head", "num_tokentypes")

    def ours(self, theirs: Theirs) -> Fields:
        binary = theirs.get("bert_binary_head", theirs.get("add_binary_head"))
        binary = True if binary is None else bool(binary)
        types = theirs.get("num_tokentypes")
        return {
            "pooler": binary,
            "sentence_head": binary,
            "token_types": (2 if binary else 0) if types is None else types,
        }

    def theirs(self, config: BertConfig) -> dict[str, Any]:
        return {"bert_binary_head": config.sentence_head, "num_tokentypes": config.token_types}


def describes(theirs: Mapping[str, Any]) -> bool:
    """Whether arguments are of this family, be the model one that we can build or not.

    `bert_binary_head` says nothing where it is true: its default is in the arguments of every run.
    """
    program = re.search("bert", theirs.get("program") or "")
    named = any(theirs.get(name) is not None for name in ("add_binary_head", "num_tokentypes"))
    return bool(program) or named or theirs.get("bert_binary_head") is False


SETTINGS = ConfigMap(
    BertConfig,
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
        _BinaryHead(),
        # The norm in front of the head is of the model's kind.
        Key("normalization", "head_transform.norm.kind", "LayerNorm", megatron_attention.NORMS),
        Key("norm_epsilon", "head_transform.norm.epsilon", 1e-5),
        Key("apply_layernorm_1p", "head_transform.norm.zero_centered", default=False),
        Constant("head_bias", value=True),
        Key(
            *("apply_residual_connection_post_layernorm", "norm_placement", False),
            {False: "input", True: "stream"},
        ),
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
