"""What Hugging Face's config.json of state spaces says in ways that no `Key` can."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from mjx.errors import InputError
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
        upper = None if math.isinf(high) else high
        return {"ssd.dt.limit": None if low <= 0 and upper is None else [low, upper]}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        limit = get(config, "ssd.dt.limit")
        if limit is None:
            return {}
        low, high = limit
        return {"time_step_limit": [low, math.inf if high is None else high]}


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
