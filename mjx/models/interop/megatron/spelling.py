"""One spelling for Megatron's settings: the names that Megatron-LM's arguments have in a run's namespace.

A setting may stand as on a command line (`--norm-epsilon`), as in the namespace of a run (`norm_epsilon`), or
as a field of Megatron-Core's `TransformerConfig` (`layernorm_epsilon`) and an argument of its `GPTModel`
(`share_embeddings_and_output_weights`). The last two have other defaults than the arguments.
"""

from collections.abc import Mapping
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.config_map import shown

_RENAMED = {
    "layernorm_epsilon": "norm_epsilon",
    "layernorm_zero_centered_gamma": "apply_layernorm_1p",
    "num_moe_experts": "num_experts",
    "max_sequence_length": "max_position_embeddings",
    "seq_len_interpolation_factor": "rotary_seq_len_interpolation_factor",
    "rope_scaling": "use_rope_scaling",
    "yarn_rotary_scaling_factor": "rotary_scaling_factor",
    "yarn_mscale": "mscale",
    "yarn_mscale_all_dim": "mscale_all_dim",
    "hybrid_override_pattern": "hybrid_layer_pattern",
}
"""TransformerConfig's and GPTModel's names, and older ones, → those of arguments."""

_NEGATED = {
    "share_embeddings_and_output_weights": "untie_embeddings_and_output_weights",
    "disable_bias_linear": "add_bias_linear",
    "no_bias_gelu_fusion": "bias_gelu_fusion",
    "no_position_embedding": "add_position_embedding",
}
"""The same for truth values that mean the opposite."""

_OF_CORE = (
    *("activation_func", "bias_activation_fusion", "gated_linear_unit"),
    "share_embeddings_and_output_weights",
)
"""By one of these we know TransformerConfig's settings, unless there is"""
_OF_ARGUMENTS = ("untie_embeddings_and_output_weights", "bias_gelu_fusion", "swiglu", "group_query_attention")
"""one of these: newer versions put fields of TransformerConfig into a run's namespace."""


def spelled(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings by the names of arguments; what they leave out has an argument's default.

    Raises:
        InputError: one has two names and two values.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if key == "model" and isinstance(value, Mapping):
            flat |= value
        else:
            flat[key.lstrip("-").replace("-", "_")] = value
    core = any(key in flat for key in _OF_CORE) and not any(key in flat for key in _OF_ARGUMENTS)
    found: dict[str, tuple[str, Any]] = {}
    for key, value in flat.items():
        name = argument_name(key)
        value = not value if key in _NEGATED and value is not None else value
        if name in found and None not in (value, found[name][1]) and value != found[name][1]:
            raise InputError(
                f'{where} has "{key}": {shown(flat[key])} and "{found[name][0]}": '
                f"{shown(flat[found[name][0]])}, which contradict each other"
            )
        if name not in found or value is not None:
            found[name] = key, value
    values = {name: value for name, (_, value) in found.items()}
    return {**values, **_defaults_of_core(values)} if core else values


def argument_name(key: str) -> str:
    """The name in a run's namespace."""
    return _NEGATED.get(key) or _RENAMED.get(key, key)


def _defaults_of_core(values: Mapping[str, Any]) -> dict[str, Any]:
    """What TransformerConfig and GPTModel take where Megatron-LM's arguments take something else."""
    filled = {
        "untie_embeddings_and_output_weights": values.get("untie_embeddings_and_output_weights", True),
        "bias_gelu_fusion": bool(values.get("bias_activation_fusion")),
        "group_query_attention": values.get("num_query_groups") is not None,
    }
    if values.get("ffn_hidden_size") is None and isinstance(values.get("hidden_size"), int):
        filled["ffn_hidden_size"] = 4 * values["hidden_size"]
    return filled
