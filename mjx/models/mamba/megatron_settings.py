"""Megatron-LM's arguments of a hybrid ↔ our config."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.config_map import (
    Absent,
    ConfigMap,
    Constant,
    Entry,
    Fields,
    Key,
    ResolvedKey,
    Theirs,
    shown,
)
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
)
from mjx.models.mamba.config import MambaConfig
from mjx.models.mamba.config_keys import Unused
from mjx.models.mamba.hybrid_pattern import by_ratios, check_length, symbols_of

_SIZES = {"mamba_state_dim": 128, "mamba_head_dim": 64, "mamba_num_groups": 8, "mamba_num_heads": None}
"""Sizes of Mamba-2, and what every run's namespace has where nobody gave them."""
_RATIOS = ("hybrid_attention_ratio", "hybrid_mlp_ratio")


def describes(theirs: Mapping[str, Any]) -> bool:
    """Whether arguments are of this family: they say so, or give sizes that nothing else has."""
    named = f"{theirs.get('program')} {theirs.get('spec')}"
    asked = ("hybrid_layer_pattern", "is_hybrid_model", *_RATIOS)
    return (
        re.search("mamba|hybrid", named) is not None
        or any(theirs.get(name) for name in asked)
        or any(theirs.get(name, default) not in (None, default) for name, default in _SIZES.items())
    )


@dataclasses.dataclass(frozen=True)
class _Pattern:
    """`hybrid_layer_pattern`; without it all layers are Mamba-2 but for those that older ratios ask for."""

    def names(self) -> Sequence[str]:
        return ("hybrid_layer_pattern", "num_layers", "is_hybrid_model", *_RATIOS)

    def ours(self, theirs: Theirs) -> Fields:
        return {"hybrid_pattern": self.pattern(theirs)}

    def pattern(self, theirs: Theirs) -> str:
        """Of whichever way it is said."""
        pattern, number = theirs.get("hybrid_layer_pattern"), theirs.get("num_layers")
        attention, mlp = (theirs.get(name) or 0.0 for name in _RATIOS)
        if pattern:
            where = f'{theirs.where}: "hybrid_layer_pattern"'
            if number is None:
                symbols_of(pattern, where)
            else:
                check_length(pattern, number, where)
            return pattern
        if number is None:
            raise InputError(f'{theirs.where} has neither "hybrid_layer_pattern" nor "num_layers"')
        if not (attention >= 0 and mlp >= 0 and attention + mlp <= 1):
            said = ", ".join(f'"{name}": {shown(theirs.get(name))}' for name in _RATIOS)
            raise InputError(f"{theirs.where} has {said}, which should be shares of the layers")
        return by_ratios(number, attention, mlp)

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {
            "hybrid_layer_pattern": config.hybrid_pattern,
            "num_layers": len(config.symbols),
            "is_hybrid_model": True,
        }


@dataclasses.dataclass(frozen=True)
class _Spec:
    """`spec`: the module, and in it the name, of what layers are made of. Of Megatron's own, two are ours."""

    def names(self) -> Sequence[str]:
        return ("spec",)

    def ours(self, theirs: Theirs) -> Fields:
        spec = theirs.get("spec")
        name = spec[-1] if isinstance(spec, list | tuple) and spec else spec
        if name and not re.search(r"(mamba|hybrid)(_inference)?_stack_spec$", str(name)):
            raise InputError(
                f'{theirs.where} has "spec": {shown(spec)}; mjx knows mamba_stack_spec and hybrid_stack_spec'
            )
        return {}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {}


def _size(name: str, field: str) -> Entry:
    return ResolvedKey(name, f"ssd.{field}", _SIZES[name])


SETTINGS = ConfigMap(
    MambaConfig,
    (
        _Pattern(),
        Key("hidden_size", "hidden_size"),
        Features(),
        Vocabulary(),
        Key("untie_embeddings_and_output_weights", "tie_embeddings", False, {False: True, True: False}),
        Biases(),
        Activation(),
        GateOptions(),
        *megatron_moe.settings(megatron_moe.Experts()),
        *megatron_attention.settings(everywhere=False),
        _size("mamba_state_dim", "state"),
        _size("mamba_head_dim", "head_dim"),
        _size("mamba_num_groups", "groups"),
        _size("mamba_num_heads", "heads"),
        Constant("ssd.norm", "behind gate"),
        Key("hidden_dropout", "dropout", 0.1),
        Key("init_method_std", "init_std", 0.02),
        ComputeDtype(),
        Recomputation(),
        Unused(_Pattern().pattern),
        _Spec(),
        Absent(("multi_latent_attention",)),
        Absent(("mtp_num_layers",)),
        Absent(("window_size",)),
        Absent(("no_rope_freq",)),
        Absent(("experimental_attention_variant", "linear_attention_freq")),
        Absent(("qk_l2_norm",)),
        Absent(("apply_residual_connection_post_layernorm",)),
        Absent(("use_mup",)),
        Absent(("enable_mhc_connections", "enable_hyper_connections")),
    ),
    ("use_mamba_mem_eff_path", "disable_mamba_mem_eff_path"),  # how it is computed
    closed=False,
)
