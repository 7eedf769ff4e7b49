"""Hugging Face's spellings of `RoPEConfig` in config.json, old and new.

transformers 5 writes `rope_parameters`, which holds everything; older versions wrote `rope_theta`,
`partial_rotary_factor` and `rope_scaling` side by side. Both are read; the older are written, for
every version reads them.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.common.rope import RoPEConfig, RoPEScaling
from mjx.models.interop.config_map import Fields, get, shown

_SHARED = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_KINDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
        *("mscale", "mscale_all_dim", "truncate"),
    ),
    "longrope": (
        *("factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"),
    ),
}
"""The keys of every kind of scaling that mjx computes."""


@dataclasses.dataclass(frozen=True)
class RopeKeys:
    """The entry of a config map that decides `field`, a `RoPEConfig`."""

    field: str = "attention.rope"
    base: str = "rope_theta"
    """The old key of the base."""
    percent: str = "partial_rotary_factor"
    """The old key of the share of features that is rotated."""
    default_base: float = 10_000.0
    partial: bool = False
    """Whether these models can rotate a share of the features."""
    default_percent: float = 1.0
    default_original: int | None = None
    """Where `original_max_position_embeddings` is missing beside `rope_scaling`; None: read inside it."""
    within: str | None = None
    """The key in `rope_parameters` where layers of different kinds have their own."""
    scaled: bool = True
    """Whether `rope_scaling` is for these layers."""
    unless: Callable[[Mapping[str, Any]], bool] = lambda theirs: False
    """Tells configs that have no such layers."""
    kind_key: str = "rope_type"
    """The word for the kind of scaling that all versions read in this architecture; we read `type` too."""
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Kinds of scaling that this architecture calls otherwise."""
    only: tuple[str, ...] = tuple(_KINDS)
    """The kinds of scaling that this architecture has."""
    unsaid: Mapping[str, Any] | None = None
    """`rope_parameters` where neither they nor `rope_scaling` are there."""
    sections: tuple[int, ...] | None = None
    """`mrope_section` where it is missing; None: positions of these models have one axis."""
    twins: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Keys that some versions wrote beside another one with the same value."""

    def names(self) -> Sequence[str]:
        return (
            *("rope_parameters", "rope_scaling", self.base, self.percent, *self.twins),
            *("max_position_embeddings", "original_max_position_embeddings"),
        )

    def ours(self, theirs: Mapping[str, Any]) -> Fields:
        if self.unless(theirs):
            return {self.field: None}
        for key, twin in self.twins.items():
            if None not in (theirs.get(key), theirs.get(twin)) and theirs[key] != theirs[twin]:
                raise InputError(
                    f'config.json has "{key}": {shown(theirs[key])} and "{twin}": {shown(theirs[twin])}, '
                    "which mean the same and should be equal"
                )
        parameters = dict(self._parameters(theirs))
        sections: Any = None
        if self.sections is not None:
            sections = parameters.pop("mrope_section", None) or self.sections
            if not isinstance(sections, list | tuple) or any(type(size) is not int for size in sections):
                raise InputError(f'config.json has "mrope_section": {shown(sections)}, which should be sizes')
        base = _number(parameters, "rope_theta", _number(theirs, self.base, self.default_base))
        percent = _number(
            parameters, "partial_rotary_factor", _number(theirs, self.percent, self.default_percent)
        )
        if percent != 1 and not self.partial:
            raise InputError(
                f'config.json has "{self.percent}": {shown(percent)}, but models of this kind rotate all '
                "features"
            )
        scaling = self._scaling(parameters, theirs)
        return {
            self.field: RoPEConfig(
                base=base, percent=percent, scaling=scaling, sections=tuple(sections) if sections else None
            )
        }

    def _parameters(self, theirs: Mapping[str, Any]) -> Mapping[str, Any]:
        """What stands in `rope_parameters` for these layers, or in `rope_scaling`, which overrules it."""
        parameters = theirs.get("rope_parameters") or {}
        scaling = (theirs.get("rope_scaling") or {}) if self.scaled else {}
        for key, value in (("rope_parameters", parameters), ("rope_scaling", scaling)):
            if not isinstance(value, dict):
                raise InputError(f'config.json has "{key}": {shown(value)}, which should be an object')
        if self.unsaid is not None and theirs.get("rope_parameters") is None and not scaling:
            return self.unsaid
        if self.within is not None:
            return {**(parameters.get(self.within) or {}), **scaling}
        if any(isinstance(value, dict) for value in parameters.values()):
            raise InputError(
                'config.json has a "rope_parameters" for each kind of layer, which this model does not have'
            )
        return scaling or parameters

    def _scaling(self, parameters: Mapping[str, Any], theirs: Mapping[str, Any]) -> RoPEScaling | None:
        kind = parameters.get("rope_type") or parameters.get("type") or "default"
        kind = self.renamed.get(kind, kind)
        known = [name for name in _KINDS if name in ("default", *self.only)]
        if kind not in known:
            raise InputError(
                f'config.json asks for "rope_type": {shown(kind)}, which mjx does not compute for this '
                f"model; known are {', '.join(known)}"
            )
        for key, value in parameters.items():
            if key not in (*_SHARED, *_KINDS[kind]) and value is not None:
                raise InputError(
                    f'config.json has "{key}": {shown(value)} for RoPE of the kind {kind}, which knows only '
                    f"{', '.join((*_SHARED, *_KINDS[kind]))}"
                )
        if kind == "default":
            return None
        longest = theirs.get("max_position_embeddings")
        # transformers lets the key beside rope_parameters overrule the one in it.
        original = (
            theirs.get("original_max_position_embeddings")
            or self.default_original
            or parameters.get("original_max_position_embeddings")
            or longest
        )
        factor = parameters.get("factor")
        if factor is None and kind in ("yarn", "longrope") and longest and original:
            factor = longest / original
        if factor is None:
            raise InputError(f'config.json has no "factor" for RoPE of the kind {kind}')
        options: dict[str, Any] = {"kind": kind, "factor": float(factor)}
        if kind != "linear":
            if original is None:
                raise InputError('config.json has no "original_max_position_embeddings", which RoPE needs')
            options["original_positions"] = int(original)
        if kind == "llama3":
            for theirs_name, ours in (("low_freq_factor", "low"), ("high_freq_factor", "high")):
                if parameters.get(theirs_name) is None:
                    raise InputError(f'config.json has no "{theirs_name}" for RoPE of the kind llama3')
                options[f"{ours}_frequency_factor"] = _number(parameters, theirs_name, 0.0)
        if kind == "yarn":
            options["beta_fast"] = _number(parameters, "beta_fast", 32.0)
            options["beta_slow"] = _number(parameters, "beta_slow", 1.0)
            options["round_ramp"] = parameters.get("truncate", True)
            options["concentration"] = _yarn_concentration(parameters, factor)
        if kind == "longrope":
            for theirs_name, ours in (("short_factor", "short_factors"), ("long_factor", "long_factors")):
                if not isinstance(parameters.get(theirs_name), list):
                    raise InputError(f'config.json has no list "{theirs_name}" for RoPE of the kind longrope')
                options[ours] = tuple(float(value) for value in parameters[theirs_name])
            if parameters.get("attention_factor") is not None:
                options["concentration"] = _number(parameters, "attention_factor", 1.0)
        return RoPEScaling(**options)

    def theirs(self, config: Any) -> dict[str, Any]:
        rope: RoPEConfig | None = get(config, self.field) or get(config, "attention.rope")
        if rope is None:
            return {}
        written: dict[str, Any] = {self.base: rope.base}
        if self.partial and rope.percent != self.default_percent:
            written[self.percent] = rope.percent
        scaling = rope.scaling
        if rope.sections is not None and self.sections is not None:
            of_scaling = {"type": "mrope"} if scaling is None else _written_scaling(scaling, self.kind_key)
            return {**written, "rope_scaling": {**of_scaling, "mrope_section": list(rope.sections)}}
        if scaling is None:
            none = None if self.unsaid is None else {self.kind_key: "default"}
            return {**written, "rope_scaling": none} if self.scaled else written
        if not self.scaled:  # only transformers 5 can say it
            of_layers = {"rope_theta": rope.base, **_written_scaling(scaling, self.kind_key)}
            others = {"full_attention": {"rope_type": "default"}}
            return {**written, "rope_parameters": {**others, str(self.within): of_layers}}
        written["rope_scaling"] = of_scaling = _written_scaling(scaling, self.kind_key)
        if scaling.kind == "longrope":
            # Older versions read the original length there, and the factor as the ratio of the two lengths.
            written["original_max_position_embeddings"] = scaling.original_positions
            longest = scaling.factor * scaling.original_positions
            if math.isclose(longest, round(longest)):
                written["max_position_embeddings"] = round(longest)
                if self.only == ("longrope",):  # Phi-3's older versions accept no more keys than these
                    del of_scaling["factor"], of_scaling["original_max_position_embeddings"]
        return written


def _written_scaling(scaling: RoPEScaling, kind_key: str) -> dict[str, Any]:
    written: dict[str, Any] = {kind_key: scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        written["original_max_position_embeddings"] = scaling.original_positions
    if scaling.kind == "llama3":
        written["low_freq_factor"] = scaling.low_frequency_factor
        written["high_freq_factor"] = scaling.high_frequency_factor
    if scaling.kind == "yarn":
        written |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        written["truncate"] = scaling.round_ramp
    if scaling.kind == "longrope":
        written["short_factor"] = list(scaling.short_factors or ())
        written["long_factor"] = list(scaling.long_factors or ())
    if scaling.concentration is not None:
        written["attention_factor"] = scaling.concentration
    return written


def _yarn_concentration(parameters: Mapping[str, Any], factor: float) -> float | None:
    """As transformers decides it: said outright, a ratio of two (DeepSeek's), or the paper's (None)."""
    if parameters.get("attention_factor") is not None:
        return _number(parameters, "attention_factor", 1.0)
    mscale, of_all = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if not (mscale and of_all) or factor <= 1:
        return None
    return (0.1 * mscale * math.log(factor) + 1) / (0.1 * of_all * math.log(factor) + 1)


def _number(parameters: Mapping[str, Any], name: str, default: float) -> float:
    value = parameters.get(name)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f'config.json has "{name}": {shown(value)}, which should be a number')
    return float(value)
