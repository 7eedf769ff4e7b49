"""What config.json of models with several sub-layers in a layer says in ways that no `Key` can."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.canonical import shortened
from mjx.models.interop.config_map import Fields, Theirs, get, shown
from mjx.models.mamba.config import MambaConfig


@dataclasses.dataclass(frozen=True)
class GatedNorm:
    """`mamba_rms_norm`, whether there is one, and `mamba_norm_before_gate`."""

    def names(self) -> Sequence[str]:
        return ("mamba_rms_norm", "mamba_norm_before_gate")

    def ours(self, theirs: Theirs) -> Fields:
        before = theirs.get("mamba_norm_before_gate", True)
        placed = "before gate" if before else "behind gate"
        return {"ssd.norm": placed if theirs.get("mamba_rms_norm") else "none"}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        norm = get(config, "ssd.norm")
        return {"mamba_rms_norm": norm != "none", "mamba_norm_before_gate": norm == "before gate"}


@dataclasses.dataclass(frozen=True)
class Factors:
    """A list of factors, each of a field; missing: all are 1."""

    name: str
    fields: tuple[str, ...]

    def names(self) -> Sequence[str]:
        return (self.name,)

    def ours(self, theirs: Theirs) -> Fields:
        given = theirs.get(self.name)
        given = [1.0] * len(self.fields) if given is None else given
        if not isinstance(given, list) or len(given) != len(self.fields):
            wanted = f"{len(self.fields)} numbers"
            raise InputError(f'{theirs.where} has "{self.name}": {shown(given)}, which should be {wanted}')
        return dict(zip(self.fields, given, strict=True))

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {self.name: [get(config, field) for field in self.fields]}


@dataclasses.dataclass(frozen=True)
class Divisor:
    """A number by which something is divided that our field is a factor on."""

    name: str
    field: str

    def names(self) -> Sequence[str]:
        return (self.name,)

    def ours(self, theirs: Theirs) -> Fields:
        divisor = theirs.get(self.name)
        return {self.field: 1.0 if divisor is None else 1 / divisor}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {self.name: shortened(1 / get(config, self.field))}


@dataclasses.dataclass(frozen=True)
class ScoreFactor:
    """`attention_multiplier`, the factor on the scores; missing: 1, not a root."""

    def names(self) -> Sequence[str]:
        return ("attention_multiplier",)

    def ours(self, theirs: Theirs) -> Fields:
        factor = theirs.get("attention_multiplier")
        return {"attention.scale": 1.0 if factor is None else float(factor)}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        if config.attention is None:
            return {}
        attention = config.attention.resolve(config.hidden_size)
        return {"attention_multiplier": attention.scale or attention.dims[2] ** -0.5}


@dataclasses.dataclass(frozen=True)
class PositionKind:
    """`position_embedding_type`: rope, or none at all."""

    def names(self) -> Sequence[str]:
        return ("position_embedding_type",)

    def ours(self, theirs: Theirs) -> Fields:
        kind = theirs.get("position_embedding_type")
        if kind not in (None, "nope", "rope"):
            raise InputError(
                f'{theirs.where} has "position_embedding_type": {shown(kind)}; known are rope and nope'
            )
        return {} if kind == "rope" else {"attention.rope": None}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        rotated = get(config, "attention.rope") is not None
        return {"position_embedding_type": "rope" if rotated else "nope"}


@dataclasses.dataclass(frozen=True)
class Rotated:
    """Whether a mixer's attention rotates at all."""

    name: str
    field: str

    def names(self) -> Sequence[str]:
        return (self.name,)

    def ours(self, theirs: Theirs) -> Fields:
        return {} if theirs.get(self.name) else {self.field: None}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {self.name: get(config, self.field) is not None}


@dataclasses.dataclass(frozen=True)
class OfBothStreams:
    """Attention whose heads are of two streams together, and its scores √2 as large."""

    def names(self) -> Sequence[str]:
        return ("num_attention_heads",)

    def ours(self, theirs: Theirs) -> Fields:
        heads = theirs.get("num_attention_heads") or 32
        return {
            "shared_block.attention.num_heads": heads,
            "shared_block.attention.scale": (theirs["hidden_size"] // heads) ** -0.5,
        }

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {"num_attention_heads": get(config, "shared_block.attention.num_heads")}


@dataclasses.dataclass(frozen=True)
class SharedKeyHeads:
    """`num_key_value_heads`: as many as there are others, where nothing is said."""

    def names(self) -> Sequence[str]:
        return ("num_key_value_heads",)

    def ours(self, theirs: Theirs) -> Fields:
        return {"shared_block.attention.num_query_groups": theirs.get("num_key_value_heads")}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        if config.shared_block is None:
            return {}
        attention = config.shared_block.resolve(config.hidden_size).attention
        return {"num_key_value_heads": attention.num_query_groups}


@dataclasses.dataclass(frozen=True)
class HeadFeatures:
    """Features of each of so many heads, which follow from the width and a factor."""

    heads: str
    factor: str
    repeats: str
    """A key that repeats them."""

    def names(self) -> Sequence[str]:
        return (self.heads, self.factor, self.repeats)

    def ours(self, theirs: Theirs) -> Fields:
        heads, factor = theirs.get(self.heads) or 8, theirs.get(self.factor) or 2
        return {"ssd.heads": heads, "ssd.head_dim": int(factor * theirs["hidden_size"]) // heads}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        if config.ssd is None:
            return {}
        sizes = config.ssd.resolve(config.hidden_size).sizes
        factor = sizes.features / config.hidden_size
        return {
            self.heads: sizes.heads,
            self.factor: int(factor) if factor.is_integer() else factor,
            self.repeats: sizes.head_dim,
        }


@dataclasses.dataclass(frozen=True)
class LeastStep:
    """`time_step_min`, which steps are not below, whatever they begin as."""

    def names(self) -> Sequence[str]:
        return ("time_step_min",)

    def ours(self, theirs: Theirs) -> Fields:
        least = theirs.get("time_step_min")
        least = 1e-3 if least is None else least
        return {"ssd.dt.min": least, "ssd.dt.limit": [least, None]}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        limit = get(config, "ssd.dt.limit")
        return {} if limit is None else {"time_step_min": limit[0]}


@dataclasses.dataclass(frozen=True)
class ProjectionFactors:
    """`ssm_multipliers`: of gate, value, B, C and steps; missing: all are 1."""

    def names(self) -> Sequence[str]:
        return ("ssm_multipliers",)

    def ours(self, theirs: Theirs) -> Fields:
        given = theirs.get("ssm_multipliers")
        return {"ssd.scales": [1.0] * 5 if given is None else given}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {"ssm_multipliers": list(get(config, "ssd.scales") or [1.0] * 5)}


@dataclasses.dataclass(frozen=True)
class KeyFactor:
    """`key_multiplier`, a factor on the keys: one on the scores, which are linear in them."""

    def names(self) -> Sequence[str]:
        return ("key_multiplier",)

    def ours(self, theirs: Theirs) -> Fields:
        factor = theirs.get("key_multiplier")
        if factor in (None, 1):
            return {"attention.scale": None}
        head_dim = theirs.get("head_dim") or theirs["hidden_size"] // (
            theirs.get("num_attention_heads") or 32
        )
        return {"attention.scale": factor / math.sqrt(head_dim)}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        if config.attention is None or config.attention.scale is None:
            return {"key_multiplier": 1.0}
        attention = config.attention.resolve(config.hidden_size)
        return {"key_multiplier": shortened(config.attention.scale * math.sqrt(attention.dims[2]))}
