"""A GPT as Megatron-Core has it: `GPTModel`'s names for parameters, and Megatron-LM's for settings."""

from collections.abc import Mapping
from typing import Any

from mjx.errors import InputError
from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.name_map import name_map, norm_rows
from mjx.models.interop.megatron_model import MegatronModel
from mjx.models.interop.name_map import NameMap, Row


def megatron_name_map(config: GPTConfig) -> NameMap:
    """Megatron's tensors (those of the local layer spec) ↔ our parameters, for this model.

    Raises:
        InputError: Megatron-Core has no such model.
    """
    for name, value, only in (
        ("norm_placement", config.norm_placement, "input"),
        ("parallel_residual", config.parallel_residual, False),
        ("attention.qk_norm_over", config.attention.qk_norm_over, "head"),
    ):
        if value != only:
            raise InputError(f"model.{name} = {value} is not in Megatron-Core, which has only {only}")
    return name_map(config, _rows(config))


def _rows(config: GPTConfig) -> list[Row]:
    attention, mlp = config.attention.resolve(config.hidden_size), config.mlp
    layer = "decoder.layers.{layer}"
    inner = f"{layer}.self_attention"

    rows = [Row("embedding.word_embeddings.weight", "embedding.weight", rows=config.vocab_size, padded=True)]
    if config.max_positions is not None:
        rows.append(Row("embedding.position_embeddings.weight", "positions.weight"))
    rows += norm_rows(config, f"{layer}.input_layernorm", "{attention}.norm")

    # The queries of a key/value head (and their gates), its key and its value lie together.
    projections = ("query", "gate", "key", "value") if attention.output_gate else ("query", "key", "value")
    groups = {"group": attention.dims[1]}
    rows.append(
        Row(
            f"{inner}.linear_qkv.weight",
            tuple(f"{{attention}}.attention.{name}.kernel" for name in projections),
            "(group [heads] head_dim) embed -> embed (group heads) head_dim",
            groups,
        )
    )
    if attention.qkv_bias:
        rows.append(
            Row(
                f"{inner}.linear_qkv.bias",
                tuple(f"{{attention}}.attention.{name}.bias" for name in projections),
                "(group [heads] head_dim) -> (group heads) head_dim",
                groups,
            )
        )
    if attention.qk_norm is not None:
        for theirs, ours in (("q", "query"), ("k", "key")):
            rows.append(
                Row(f"{inner}.{theirs}_layernorm.weight", f"{{attention}}.attention.{ours}_norm.scale")
            )
            if attention.qk_norm.kind == "layernorm":
                rows.append(
                    Row(f"{inner}.{theirs}_layernorm.bias", f"{{attention}}.attention.{ours}_norm.bias")
                )
    if attention.softmax == "learnable":
        rows.append(Row(f"{inner}.core_attention.softmax_offset", "{attention}.attention.sinks"))
    rows.append(
        Row(
            f"{inner}.linear_proj.weight",
            "{attention}.attention.output.kernel",
            "embed (heads head_dim) -> heads head_dim embed",
        )
    )
    if attention.output_bias:
        rows.append(Row(f"{inner}.linear_proj.bias", "{attention}.attention.output.bias"))

    rows += norm_rows(config, f"{layer}.pre_mlp_layernorm", "{mlp}.norm")
    wide = ("{mlp}.mlp.gate", "{mlp}.mlp.up") if mlp.gated else ("{mlp}.mlp.up",)
    kernels = tuple(f"{name}.kernel" for name in wide)
    rows.append(Row(f"{layer}.mlp.linear_fc1.weight", kernels, "[mlp] embed -> embed mlp"))
    rows.append(Row(f"{layer}.mlp.linear_fc2.weight", "{mlp}.mlp.down.kernel", "embed mlp -> mlp embed"))
    if mlp.bias:
        biases = tuple(f"{name}.bias" for name in wide)
        rows.append(Row(f"{layer}.mlp.linear_fc1.bias", biases, "[mlp] -> mlp"))
        rows.append(Row(f"{layer}.mlp.linear_fc2.bias", "{mlp}.mlp.down.bias"))

    rows += norm_rows(config, "decoder.final_layernorm", "final_norm")
    if not config.tie_embeddings:
        rows.append(Row("output_layer.weight", "head.weight", rows=config.vocab_size, padded=True))
    return rows


_ABSENT = ("num_experts", "multi_latent_attention", "mtp_num_layers", "heterogeneous_layers_config_path")
"""Arguments that ask for what a GPT of ours does not have."""


def check_arguments(config: GPTConfig, arguments: Mapping[str, Any]) -> None:
    """Raise if Megatron-LM's arguments, of which any may be missing, describe another model than `config`.

    The shapes of tensors do not show all of it: neither the norms' epsilon nor the rotation's base.

    Raises:
        InputError: naming every argument that differs.
    """
    different = [
        f"{name} = {arguments[name]}, which mjx's GPT does not have"
        for name in _ABSENT
        if arguments.get(name)
    ]
    for argument, expected, field in _claims(config, arguments):
        found = arguments.get(argument, expected)
        if (tuple(found) if isinstance(found, list) else found) != expected:
            different.append(f"{argument} = {found}, but model.{field} asks for {expected}")
    padded = arguments.get("padded_vocab_size")
    if padded is not None and padded < config.vocab_size:
        different.append(f"padded_vocab_size = {padded}, but model.vocab_size = {config.vocab_size}")
    if different:
        raise InputError(f"the model was trained with {'; '.join(different)}")


def _claims(config: GPTConfig, arguments: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """(argument, what it must be, our field that asks for it)."""
    attention, mlp, norm = config.attention.resolve(config.hidden_size), config.mlp, config.norm
    heads, groups, head_dim = attention.dims
    rope, window, activation = attention.rope, attention.window, (mlp.activation, mlp.gated)
    scaling = None if rope is None else rope.scaling
    positions = "none" if rope is None else "rope"
    claims = [
        ("num_layers", config.num_layers, "num_layers"),
        ("hidden_size", config.hidden_size, "hidden_size"),
        ("ffn_hidden_size", mlp.features, "mlp.features"),
        ("num_attention_heads", heads, "attention.num_heads"),
        ("kv_channels", head_dim, "attention.head_dim"),
        ("normalization", {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}[norm.kind], "norm.kind"),
        ("norm_epsilon", norm.epsilon, "norm.epsilon"),
        ("apply_layernorm_1p", norm.zero_centered, "norm.zero_centered"),
        ("qk_layernorm", attention.qk_norm is not None, "attention.qk_norm"),
        ("swiglu", activation == ("silu", True), "mlp.activation"),
        ("quick_geglu", activation == ("quick-gelu", True), "mlp.activation"),
        ("squared_relu", activation == ("relu2", False), "mlp.activation"),
        ("untie_embeddings_and_output_weights", not config.tie_embeddings, "tie_embeddings"),
        ("window_size", None if window is None else (window - 1, 0), "attention.window"),
        ("softmax_type", attention.softmax, "attention.softmax"),
    ]
    # Without grouped queries the number of groups that it names is not used.
    if arguments.get("group_query_attention"):
        claims.append(("num_query_groups", groups, "attention.num_query_groups"))
    else:
        claims.append(("group_query_attention", groups != heads, "attention.num_query_groups"))
    if attention.qk_norm is not None:
        claims.append(("norm_epsilon", attention.qk_norm.epsilon, "attention.qk_norm.epsilon"))
    if config.max_positions is not None:
        claims.append(("position_embedding_type", "learned_absolute", "max_positions"))
    elif scaling is None or scaling.kind != "yarn":
        claims.append(("position_embedding_type", positions, "attention.rope"))
    if rope is not None:
        linear = scaling.factor if scaling is not None and scaling.kind == "linear" else None
        llama3 = scaling.factor if scaling is not None and scaling.kind == "llama3" else None
        claims += [
            ("rotary_base", rope.base, "attention.rope.base"),
            ("rotary_percent", rope.percent, "attention.rope.percent"),
            ("rotary_interleaved", rope.layout == "interleaved", "attention.rope.layout"),
            ("rotary_seq_len_interpolation_factor", linear, "attention.rope.scaling"),
            ("use_rope_scaling", llama3 is not None, "attention.rope.scaling"),
        ]
        if llama3 is not None:
            claims.append(("rope_scaling_factor", llama3, "attention.rope.scaling.factor"))
    return claims


MEGATRON = MegatronModel(name_map=megatron_name_map, check_arguments=check_arguments)
