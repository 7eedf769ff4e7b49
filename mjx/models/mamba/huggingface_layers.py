"""How Hugging Face's config.json of hybrids says which layers are what."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.config_map import Fields, Theirs, get, shown
from mjx.models.mamba.config import MambaConfig


def _number(theirs: Theirs, name: str, default: int | None) -> int:
    """A key that holds a number from 0 on."""
    value = theirs.get(name)
    value = default if value is None else value
    if type(value) is not int or value < 0:
        raise InputError(f'{theirs.where} has "{name}": {shown(value)}, which should be a number')
    return value


@dataclasses.dataclass(frozen=True)
class AllAlike:
    """`num_hidden_layers` of one kind."""

    symbol: str

    def names(self) -> Sequence[str]:
        return ("num_hidden_layers",)

    def pattern(self, theirs: Theirs) -> str:
        """The pattern string."""
        return self.symbol * _number(theirs, "num_hidden_layers", 32)

    def ours(self, theirs: Theirs) -> Fields:
        return {"hybrid_pattern": self.pattern(theirs)}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {"num_hidden_layers": len(config.symbols)}


_KINDS = {
    **{"linear_attention": "M", "mamba": "M", "full_attention": "*", "attention": "*"},
    **{"mlp": "-", "moe": "E", "sparse": "E"},
}


@dataclasses.dataclass(frozen=True)
class BlockTypes:
    """`layers_block_type`, a word for each layer, or before it Megatron's pattern string."""

    def names(self) -> Sequence[str]:
        return ("layers_block_type", "layer_types", "hybrid_override_pattern", "num_hidden_layers")

    def pattern(self, theirs: Theirs) -> str:
        """The pattern string."""
        types = theirs.get("layers_block_type") or theirs.get("layer_types")
        if types is None:
            types = theirs.get("hybrid_override_pattern")
            if not isinstance(types, str):
                raise InputError(
                    f'{theirs.where} has neither "layers_block_type" nor "hybrid_override_pattern"'
                )
            return types
        if not isinstance(types, list) or any(kind not in _KINDS for kind in types):
            raise InputError(
                f'{theirs.where} has "layers_block_type": {shown(types)}, which should be a list of '
                f"{', '.join(_KINDS)}"
            )
        return "".join(_KINDS[kind] for kind in types)

    def ours(self, theirs: Theirs) -> Fields:
        return {"hybrid_pattern": self.pattern(theirs)}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {"hybrid_override_pattern": config.symbols, "num_hidden_layers": len(config.symbols)}


@dataclasses.dataclass(frozen=True)
class AttentionIndices:
    """Pairs of Mamba-2 and an MLP, with attention in the places of `attn_layer_indices`."""

    def names(self) -> Sequence[str]:
        return ("attn_layer_indices", "num_hidden_layers")

    def pattern(self, theirs: Theirs) -> str:
        """The pattern string."""
        number, indices = _number(theirs, "num_hidden_layers", 32), theirs.get("attn_layer_indices") or []
        if not isinstance(indices, list) or any(index not in range(number) for index in indices):
            raise InputError(
                f'{theirs.where} has "attn_layer_indices": {shown(indices)}, which should be some of the '
                f"layers 0 to {number - 1}"
            )
        return "".join("*-" if layer in indices else "M-" for layer in range(number))

    def ours(self, theirs: Theirs) -> Fields:
        return {"hybrid_pattern": self.pattern(theirs)}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        first = config.symbols[::2]
        indices = [layer for layer, symbol in enumerate(first) if symbol == "*"]
        return {"attn_layer_indices": indices, "num_hidden_layers": len(first)}


@dataclasses.dataclass(frozen=True)
class LayerTypes:
    """`layer_types`, Mamba-2 or attention, each before experts; without `num_local_experts` before an MLP."""

    def names(self) -> Sequence[str]:
        return ("layer_types", "layers_block_type", "num_hidden_layers", "num_local_experts")

    def pattern(self, theirs: Theirs) -> str:
        """The pattern string."""
        number = _number(theirs, "num_hidden_layers", 32)
        types = theirs.get("layer_types") or theirs.get("layers_block_type") or ["mamba"] * number
        wrong = not isinstance(types, list) or any(_KINDS.get(kind) not in ("M", "*") for kind in types)
        if wrong or len(types) != number:
            raise InputError(
                f'{theirs.where} has "layer_types": {shown(types)}, which should be {number} of mamba and '
                "attention"
            )
        behind = "E" if _number(theirs, "num_local_experts", 8) else "-"
        return "".join(_KINDS[kind] + behind for kind in types)

    def ours(self, theirs: Theirs) -> Fields:
        experts = _number(theirs, "num_local_experts", 8)
        return {"hybrid_pattern": self.pattern(theirs), "moe.experts": experts}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        first = config.symbols[::2]
        return {
            "layer_types": ["attention" if symbol == "*" else "mamba" for symbol in first],
            "num_hidden_layers": len(first),
            "num_local_experts": get(config, "moe.experts") or 0,
        }


@dataclasses.dataclass(frozen=True)
class HybridTypes:
    """`layers_block_type`: Mamba-2, or Mamba-2 that reads one of `num_mem_blocks` shared blocks too."""

    def names(self) -> Sequence[str]:
        return ("layers_block_type", "layer_types", "num_hidden_layers", "num_mem_blocks")

    def pattern(self, theirs: Theirs) -> str:
        """The pattern string."""
        number = _number(theirs, "num_hidden_layers", 54)
        types = theirs.get("layers_block_type") or theirs.get("layer_types")
        known = {"mamba": "M", "linear_attention": "M", "hybrid": "SM"}
        if not isinstance(types, list) or len(types) != number or any(kind not in known for kind in types):
            raise InputError(
                f'{theirs.where} has "layers_block_type": {shown(types)}, which should be {number} of mamba '
                "and hybrid"
            )
        return "".join(known[kind] for kind in types)

    def ours(self, theirs: Theirs) -> Fields:
        pattern, blocks = self.pattern(theirs), _number(theirs, "num_mem_blocks", 1)
        # With a head of its own transformers ties nothing at all: every place has its own block.
        tied = theirs.get("tie_word_embeddings")
        if tied is not None and not tied:
            blocks = pattern.count("S")
        return {"hybrid_pattern": pattern, "shared_block.blocks": blocks}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        symbols = config.symbols
        pairs = itertools.pairwise("-" + symbols)
        types = ["hybrid" if before == "S" else "mamba" for before, symbol in pairs if symbol == "M"]
        blocks = get(config, "shared_block.blocks") or 1
        return {"layers_block_type": types, "num_hidden_layers": len(types), "num_mem_blocks": blocks}


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """`num_hidden_layers` of Mamba-2 beside attention, and an MLP."""

    def names(self) -> Sequence[str]:
        return ("num_hidden_layers",)

    def pattern(self, theirs: Theirs) -> str:
        """The pattern string."""
        return "(M*)-" * _number(theirs, "num_hidden_layers", 32)

    def ours(self, theirs: Theirs) -> Fields:
        return {"hybrid_pattern": self.pattern(theirs)}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {"num_hidden_layers": len(config.symbols) // 3}


@dataclasses.dataclass(frozen=True)
class Periods:
    """Pairs of Mamba-1 and an MLP; in the places of some, periodically, attention and experts."""

    def names(self) -> Sequence[str]:
        return (
            *("num_hidden_layers", "attn_layer_period", "attn_layer_offset", "expert_layer_period"),
            *("expert_layer_offset", "num_experts"),
        )

    def pattern(self, theirs: Theirs) -> str:
        """The pattern string."""
        number, symbols = _number(theirs, "num_hidden_layers", 32), ""
        attention = [_number(theirs, f"attn_layer_{name}", at) for name, at in (("period", 8), ("offset", 4))]
        experts = [_number(theirs, f"expert_layer_{name}", at) for name, at in (("period", 2), ("offset", 1))]
        for name, (period, offset) in (("attn", attention), ("expert", experts)):
            if offset >= period:
                raise InputError(
                    f'{theirs.where} has "{name}_layer_offset": {offset}, which should be below '
                    f'"{name}_layer_period": {period}'
                )
        several = _number(theirs, "num_experts", 16) > 1
        for layer in range(number):
            symbols += "*" if layer % attention[0] == attention[1] else "m"
            symbols += "E" if several and layer % experts[0] == experts[1] else "-"
        return symbols

    def ours(self, theirs: Theirs) -> Fields:
        return {"hybrid_pattern": self.pattern(theirs), "moe.experts": theirs.get("num_experts") or 16}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        symbols, written = config.symbols, {"num_experts": get(config, "moe.experts") or 1}
        for name, kinds, symbol in (("attn", symbols[::2], "*"), ("expert", symbols[1::2], "E")):
            places = [layer for layer, kind in enumerate(kinds) if kind == symbol]
            offset = places[0] if places else len(kinds)
            period = places[1] - offset if len(places) > 1 else len(kinds) + 1
            written |= {f"{name}_layer_period": max(period, offset + 1), f"{name}_layer_offset": offset}
        return {"num_hidden_layers": len(symbols) // 2, **written}
