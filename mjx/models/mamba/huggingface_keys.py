"""What Hugging Face's config.json of state spaces says in ways that no `Key` can."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.canonical import shortened
from mjx.models.interop.config_map import Entry, Fields, Key, ResolvedKey, Theirs, get, shown
from mjx.models.mamba.config import MambaConfig


@dataclasses.dataclass(frozen=True)
class StepLimit:
    """`time_step_limit`: two bounds, of which 0 and infinity bound nothing."""

    also: tuple[str, ...] = ()

    def names(self) -> Sequence[str]:
        return ("time_step_limit", *self.also)

    def ours(self, theirs: Theirs) -> Fields:
        limit = next((theirs[name] for name in self.names() if theirs.get(name) is not None), None)
        if limit is None:
            return {"ssd.dt.limit": None}
        # transformers 5 writes infinity as {"__float__": "Infinity"}
        bounds = [float(each["__float__"] if isinstance(each, dict) else each) for each in limit]
        if len(bounds) != 2:
            raise InputError(
                f'{theirs.where} has "time_step_limit": {shown(limit)}, which should be two bounds'
            )
        low, high = bounds
        return {"ssd.dt.limit": None if low <= 0 and math.isinf(high) else bounds}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        limit = get(config, "ssd.dt.limit")
        return {} if limit is None else {"time_step_limit": list(limit)}


@dataclasses.dataclass(frozen=True)
class Channels:
    """Channels: those that the file says, or the width times a factor."""

    factor: str
    """The key of the factor."""

    def names(self) -> Sequence[str]:
        return (self.factor, "intermediate_size") if self.factor == "expand" else (self.factor,)

    def ours(self, theirs: Theirs) -> Fields:
        given = theirs.get("intermediate_size") if "intermediate_size" in self.names() else None
        factor = theirs.get(self.factor)
        inner = given or int((2 if factor is None else factor) * theirs["hidden_size"])
        return {"selective_scan.inner": inner}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        if config.selective_scan is None:
            return {}
        inner = config.selective_scan.resolve(config.hidden_size).sizes[0]
        factor = inner / config.hidden_size
        written = {self.factor: int(factor) if factor.is_integer() else factor}
        return written | ({"intermediate_size": inner} if self.factor == "expand" else {})


@dataclasses.dataclass(frozen=True)
class Expand:
    """The factor of the width that the sizes of heads repeat."""

    name: str

    def names(self) -> Sequence[str]:
        return (self.name,)

    def ours(self, theirs: Theirs) -> Fields:
        return {}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        if config.ssd is None:
            return {}
        factor = config.ssd.resolve(config.hidden_size).sizes.features / config.hidden_size
        return {self.name: int(factor) if factor.is_integer() else factor}


def heads(
    name: str,
    head_dim: str,
    default: Any,
    factor: str,
    *,
    features: str | None = None,
    without: int | None = None,
) -> tuple[Entry, ...]:
    """The keys of the number of heads, of their features (with its default), and of expand; and of those of
    all heads, where there is one."""
    auto = HeadDim(head_dim, name, factor, features, without)
    return (
        ResolvedKey(name, "ssd.heads", 128),
        auto if default == "auto" else Key(head_dim, "ssd.head_dim", default),
        *(() if features else (Expand(factor),)),
    )


@dataclasses.dataclass(frozen=True)
class HeadDim:
    """Features of a head, or "auto": of all heads, over the number of heads."""

    name: str
    heads: str
    factor: str
    features: str | None = None
    """The key of the features of all heads, where there is one."""
    without: int | None = None
    """Those where it is missing; None, and where it is null: the width times the factor."""

    def names(self) -> Sequence[str]:
        names = (self.name, self.heads, self.factor)
        return names if self.features is None else (*names, self.features)

    def ours(self, theirs: Theirs) -> Fields:
        heads, factor = theirs.get(self.heads) or 128, theirs.get(self.factor) or 2
        features, value = int(factor * theirs["hidden_size"]), theirs.get(self.name)
        if self.features is not None:
            features = theirs.get(self.features, self.without) or features
        if value in (None, "auto"):
            value = features // heads
        if self.features is not None and value * heads != features:
            raise InputError(
                f'{theirs.where} has "{self.heads}": {heads} heads of {value} features, which should be '
                f"{features} in all"
            )
        return {"ssd.head_dim": value}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        if config.ssd is None or self.features is None:
            return {self.name: get(config, "ssd.head_dim")}
        sizes = config.ssd.resolve(config.hidden_size).sizes
        return {self.name: sizes.head_dim, self.features: sizes.features}


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


def steps(field: str) -> tuple[Entry, ...]:
    """What the steps of a mixer begin as."""
    return (
        Key("time_step_min", f"{field}.dt.min", 1e-3),
        Key("time_step_max", f"{field}.dt.max", 0.1),
        Key("time_step_floor", f"{field}.dt.floor", 1e-4),
    )


@dataclasses.dataclass(frozen=True)
class StepRank(ResolvedKey):
    """A number, or "auto"."""

    def ours(self, theirs: Theirs) -> Fields:
        value = theirs.get(self.name)
        return {"selective_scan.dt_rank": None if value == "auto" else value}
