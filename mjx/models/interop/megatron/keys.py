"""What Megatron-LM's arguments say in ways that no `Key` can, for the parts that families share.

Where a default is said here, it is that of Megatron-LM's argument.
"""

import ast
import dataclasses
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.rope import RoPEScaling
from mjx.models.interop.config_map import Fields, Theirs, get, shown


def any_mlp(config: Any) -> MLPConfig | None:
    """That of dense layers, or of experts where there are none: Megatron has one kind for both. None: a model
    of neither."""
    return get(config, "moe.mlp") if config.mlp is None else config.mlp


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Rows of the token table: as many as there are token ids, or, where only that is said, with padding."""

    def names(self) -> Sequence[str]:
        return (
            *("vocab_size", "padded_vocab_size", "make_vocab_size_divisible_by"),
            "tensor_model_parallel_size",
        )

    def ours(self, theirs: Theirs) -> Fields:
        rows = theirs.get("vocab_size") or theirs.get("padded_vocab_size")
        if rows is None:
            raise InputError(f'{theirs.where} has neither "vocab_size" nor "padded_vocab_size"')
        divisor = theirs.get("make_vocab_size_divisible_by") or 128
        divisor *= theirs.get("tensor_model_parallel_size") or 1
        return {"vocab_size": rows, "vocab_divisor": divisor}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {
            "vocab_size": config.vocab_size,
            "padded_vocab_size": config.padded_vocab_size,
            "make_vocab_size_divisible_by": config.vocab_divisor,
        }


@dataclasses.dataclass(frozen=True)
class ComputeDtype:
    """`bf16`, `fp16` or neither, which is float32. Of float16, which mjx does not have, it makes "auto"."""

    def names(self) -> Sequence[str]:
        return ("bf16", "fp16", "params_dtype")

    def ours(self, theirs: Theirs) -> Fields:
        stored = str(theirs.get("params_dtype"))
        if theirs.get("bf16") or stored.endswith("bfloat16"):
            return {"dtype": "bfloat16"}
        return {"dtype": "auto" if theirs.get("fp16") or stored.endswith("float16") else "float32"}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {"bf16": config.dtype != "float32"}


@dataclasses.dataclass(frozen=True)
class Recomputation:
    """`recompute_granularity`, or the flag that means its selective one."""

    def names(self) -> Sequence[str]:
        return ("recompute_granularity", "recompute_activations")

    def ours(self, theirs: Theirs) -> Fields:
        selective = "selective" if theirs.get("recompute_activations") else "none"
        return {"remat": theirs.get("recompute_granularity") or selective}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {"recompute_granularity": None if config.remat == "none" else config.remat}


@dataclasses.dataclass(frozen=True)
class Biases:
    """`add_bias_linear` and `add_qkv_bias`, of which either gives queries, keys and values a bias."""

    def names(self) -> Sequence[str]:
        return ("add_bias_linear", "add_qkv_bias")

    def ours(self, theirs: Theirs) -> Fields:
        everywhere = _truth(theirs, "add_bias_linear", True)
        return {
            "mlp.bias": everywhere,
            "moe.mlp.bias": everywhere,
            "moe.router.bias": everywhere,
            "attention.output_bias": everywhere,
            "attention.qkv_bias": everywhere or _truth(theirs, "add_qkv_bias", False),
        }

    def theirs(self, config: Any) -> dict[str, Any]:
        mlp, attention = any_mlp(config), config.attention
        parts = [part for part in (mlp and mlp.bias, attention and attention.output_bias) if part is not None]
        return {
            "add_bias_linear": parts[0] if parts else False,
            "add_qkv_bias": get(config, "attention.qkv_bias") or False,
        }


@dataclasses.dataclass(frozen=True)
class QueryGroups:
    """`num_query_groups`, which is not looked at without `group_query_attention`."""

    def names(self) -> Sequence[str]:
        return ("group_query_attention", "num_query_groups")

    def ours(self, theirs: Theirs) -> Fields:
        grouped = _truth(theirs, "group_query_attention", False)
        return {"attention.num_query_groups": (theirs.get("num_query_groups") or 1) if grouped else None}

    def theirs(self, config: Any) -> dict[str, Any]:
        if config.attention is None:
            return {}
        heads, groups = config.attention.num_heads, config.attention.num_query_groups or 0
        grouped = groups not in (0, heads)
        return {"group_query_attention": grouped, "num_query_groups": groups if grouped else None}


@dataclasses.dataclass(frozen=True)
class Features:
    """`ffn_hidden_size`, which follows from the width where it is not said."""

    def names(self) -> Sequence[str]:
        return ("ffn_hidden_size",)

    def ours(self, theirs: Theirs) -> Fields:
        features, hidden = theirs.get("ffn_hidden_size"), theirs.get("hidden_size") or 0
        if features is None:  # two thirds of it for SwiGLU, in multiples of 64
            features = int((4 * hidden * 2 / 3) / 64) * 64 if theirs.get("swiglu") else 4 * hidden
        return {"mlp.features": features, "moe.mlp.features": features}

    def theirs(self, config: Any) -> dict[str, Any]:
        mlp = any_mlp(config)
        return {} if mlp is None else {"ffn_hidden_size": mlp.features}


_FUNCTIONS = {
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "quick_gelu": "quick-gelu",
    "squared_relu": "relu2",
    "fast_gelu": "gelu-tanh",
    "openai_gelu": "gelu-tanh",
}
"""The last part of `activation_func`'s name → ours."""


@dataclasses.dataclass(frozen=True)
class Activation:
    """Flags of which one may be given, or `activation_func` with `gated_linear_unit`; GELU without any.

    Megatron's GELU is exact, but for the one that is fused with the addition of the bias, its default.
    """

    def names(self) -> Sequence[str]:
        return (
            *("swiglu", "quick_geglu", "squared_relu", "openai_gelu", "bias_gelu_fusion"),
            *("activation_func", "gated_linear_unit"),
        )

    def ours(self, theirs: Theirs) -> Fields:
        asked = [name for name in ("swiglu", "quick_geglu", "squared_relu") if theirs.get(name)]
        if len(asked) > 1:
            raise InputError(f"{theirs.where} has {' and '.join(asked)}, of which only one may be given")
        flags = {"swiglu": "silu", "quick_geglu": "quick-gelu", "squared_relu": "relu2"}
        gated = bool(theirs.get("gated_linear_unit")) or asked in (["swiglu"], ["quick_geglu"])
        activation = flags[asked[0]] if asked else self._function(theirs)
        # Without biases to fuse, Megatron-LM turns the fusion off.
        fused = theirs.get("bias_gelu_fusion")
        fused = _truth(theirs, "add_bias_linear", True) if fused is None else fused
        if activation == "gelu" and (fused or theirs.get("openai_gelu")):
            activation = "gelu-tanh"
        return {
            f"{mlp}.{name}": value
            for mlp in ("mlp", "moe.mlp")
            for name, value in (("activation", activation), ("gated", gated))
        }

    def _function(self, theirs: Theirs) -> str:
        function = theirs.get("activation_func")
        if function is None:
            return "gelu"
        # As it prints itself, <function silu at 0x7f…>, or by its full name.
        printed = re.fullmatch(r"<(?:built-in )?function (\S+?)(?: at \w+)?>", str(function))
        name = (printed[1] if printed else str(function)).rpartition(".")[2]
        if name not in _FUNCTIONS:
            raise InputError(
                f'{theirs.where} has "activation_func": {shown(function)}; known are {", ".join(_FUNCTIONS)}'
            )
        return _FUNCTIONS[name]

    def theirs(self, config: Any) -> dict[str, Any]:
        mlp = any_mlp(config)
        if mlp is None:
            return {}
        kind = mlp.activation, mlp.gated
        written = {
            "swiglu": kind == ("silu", True),
            "quick_geglu": kind == ("quick-gelu", True),
            "squared_relu": kind == ("relu2", False),
            "bias_gelu_fusion": kind[0] == "gelu-tanh",
        }
        if kind in (("gelu", False), ("gelu-tanh", False)) or any(list(written.values())[:3]):
            return written
        function = next(name for name, ours in _FUNCTIONS.items() if ours == kind[0])
        return {**written, "activation_func": function, "gated_linear_unit": kind[1]}


@dataclasses.dataclass(frozen=True)
class GateOptions:
    """`glu_linear_offset` and `activation_func_clamp_value`, which Megatron looks at in gated MLPs only."""

    def names(self) -> Sequence[str]:
        return ("glu_linear_offset", "activation_func_clamp_value")

    def ours(self, theirs: Theirs) -> Fields:
        gated = Activation().ours(theirs)["mlp.gated"]
        offset, clamp = (theirs.get(name) if gated else None for name in self.names())
        return {
            f"{mlp}.{name}": value
            for mlp in ("mlp", "moe.mlp")
            for name, value in (("linear_offset", offset or 0.0), ("clamp", clamp))
        }

    def theirs(self, config: Any) -> dict[str, Any]:
        mlp = any_mlp(config)
        if mlp is None:
            return {}
        return {"glu_linear_offset": mlp.linear_offset, "activation_func_clamp_value": mlp.clamp}


@dataclasses.dataclass(frozen=True)
class RotaryScaling:
    """The ways in which Megatron stretches rotary positions, of which a model has one at most."""

    field: str = "attention.rope.scaling"

    def names(self) -> Sequence[str]:
        return (
            *("rotary_seq_len_interpolation_factor", "use_rope_scaling", "rope_scaling_factor"),
            *("position_embedding_type", "rotary_scaling_factor", "yarn_original_max_position_embeddings"),
            *("yarn_beta_fast", "yarn_beta_slow", "yarn_correction_range_round_to_int"),
            *("mscale", "mscale_all_dim"),
        )

    def ours(self, theirs: Theirs) -> Fields:
        linear = theirs.get("rotary_seq_len_interpolation_factor") or None
        kinds: dict[str, Callable[[], RoPEScaling]] = {}
        if linear not in (None, 1):
            kinds["rotary_seq_len_interpolation_factor"] = lambda: RoPEScaling(kind="linear", factor=linear)
        if theirs.get("use_rope_scaling"):
            factor = _number(theirs, "rope_scaling_factor", 8.0)
            kinds["use_rope_scaling"] = lambda: RoPEScaling(kind="llama3", factor=factor)
        if theirs.get("position_embedding_type") == "yarn":
            kinds["position_embedding_type"] = lambda: _yarn(theirs)
        if len(kinds) > 1:
            said = ", ".join(f'"{name}": {shown(theirs[name])}' for name in kinds)
            raise InputError(f"{theirs.where} has {said}; mjx stretches rotary positions in one way")
        return {self.field: next((make() for make in kinds.values()), None)}

    def theirs(self, config: Any) -> dict[str, Any]:
        scaling: RoPEScaling | None = get(config, self.field)
        kind = None if scaling is None else scaling.kind
        written: dict[str, Any] = {
            "rotary_seq_len_interpolation_factor": scaling.factor if scaling and kind == "linear" else None,
            "use_rope_scaling": kind == "llama3",
        }
        if scaling is not None and kind == "llama3":
            written["rope_scaling_factor"] = scaling.factor
        if scaling is not None and kind == "yarn":
            written |= {
                "rotary_scaling_factor": scaling.factor,
                "yarn_original_max_position_embeddings": scaling.original_positions,
                "yarn_beta_fast": scaling.beta_fast,
                "yarn_beta_slow": scaling.beta_slow,
                "yarn_correction_range_round_to_int": scaling.round_ramp,
                **_mscales(scaling),
            }
        return written


def _yarn(theirs: Theirs) -> RoPEScaling:
    factor = _number(theirs, "rotary_scaling_factor", 1.0)
    scales = [_number(theirs, *default) for default in (("mscale", 1.0), ("mscale_all_dim", 0.0))]
    growth = math.log(factor) if factor > 1 else 0.0
    one, of_all = (0.1 * scale * growth + 1 for scale in scales)
    return RoPEScaling(
        kind="yarn",
        factor=factor,
        original_positions=theirs.get("yarn_original_max_position_embeddings") or 4096,
        beta_fast=_number(theirs, "yarn_beta_fast", 32.0),
        beta_slow=_number(theirs, "yarn_beta_slow", 1.0),
        round_ramp=_truth(theirs, "yarn_correction_range_round_to_int", True),
        concentration=None if scales == [1.0, 0.0] else one / of_all,
    )


def _mscales(scaling: RoPEScaling) -> dict[str, float]:
    """A pair of scales whose quotient is the factor on the tables."""
    if scaling.concentration is None or scaling.factor <= 1:
        return {"mscale": 1.0, "mscale_all_dim": 0.0}
    return {"mscale": (scaling.concentration - 1) / (0.1 * math.log(scaling.factor)), "mscale_all_dim": 0.0}


_FACTORS = {ast.Add: operator.add, ast.Mult: operator.mul}


def layer_list(theirs: Theirs, name: str) -> int | tuple[bool, ...] | None:
    """What says which layers have something: a period, or a list as it is or as `[1,1,0]*8`."""
    value = theirs.get(name)
    if isinstance(value, str):
        try:
            value = _evaluated(ast.parse(value, mode="eval").body)
        except (SyntaxError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f'{theirs.where} has "{name}": {shown(value)}, which should be a number of layers, or a list '
                "of 0 and 1 such as [1,1,0]*8"
            ) from error
    return tuple(map(bool, value)) if isinstance(value, list | tuple) else value


def _evaluated(node: ast.expr) -> Any:
    """Lists of numbers, their sums and multiples; nothing else is run."""
    match node:
        case ast.List(elts=elements):
            return [_evaluated(element) for element in elements]
        case ast.BinOp(left=left, op=operation, right=right):
            sides = _evaluated(left), _evaluated(right)
            if any((side if isinstance(side, int) else len(side)) > 1000 for side in sides):
                raise ValueError("no model has so many layers")
            return _FACTORS[type(operation)](*sides)
        case ast.Constant(value=int(number)):
            return number
    raise ValueError(ast.dump(node))


def _truth(theirs: Theirs, name: str, default: bool) -> bool:
    value = theirs.get(name)
    return default if value is None else bool(value)


def _number(theirs: Theirs, name: str, default: float) -> float:
    value = theirs.get(name)
    return default if value is None else float(value)
