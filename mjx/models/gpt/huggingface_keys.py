"""What Hugging Face's config.json of decoder-only models says in ways that no `Key` can."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.config_keys import window_layers
from mjx.models.interop.canonical import shortest
from mjx.models.interop.config_map import Fields, get, shown


@dataclasses.dataclass(frozen=True)
class InnerFeatures:
    """GPT-2's MLP is four times as wide as the model where `n_inner` is null."""

    def names(self) -> Sequence[str]:
        return ("n_inner",)

    def ours(self, theirs: Mapping[str, Any]) -> Fields:
        return {"mlp.features": theirs.get("n_inner") or 4 * (theirs.get("n_embd") or theirs["hidden_size"])}

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        return {"n_inner": get(config, "mlp.features")}


@dataclasses.dataclass(frozen=True)
class UnscaledScores:
    """GPT-2's `scale_attn_weights`."""

    def names(self) -> Sequence[str]:
        return ("scale_attn_weights",)

    def ours(self, theirs: Mapping[str, Any]) -> Fields:
        return {"attention.scale": 1.0 if theirs.get("scale_attn_weights") is False else None}

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        return {"scale_attn_weights": config.attention.scale != 1.0}


@dataclasses.dataclass(frozen=True)
class ScoreScalar:
    """Gemma's scores are divided by the root of `query_pre_attn_scalar`."""

    def names(self) -> Sequence[str]:
        return ("query_pre_attn_scalar",)

    def ours(self, theirs: Mapping[str, Any]) -> Fields:
        return {"attention.scale": float(theirs.get("query_pre_attn_scalar") or 256) ** -0.5}

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        attention = config.attention.resolve(config.hidden_size)
        scalar = (attention.scale or attention.dims[2] ** -0.5) ** -2
        return {"query_pre_attn_scalar": round(scalar) if math.isclose(scalar, round(scalar)) else scalar}


@dataclasses.dataclass(frozen=True)
class EmbeddingScale:
    """Gemma's embeddings are multiplied by the root of the width."""

    def names(self) -> Sequence[str]:
        return ()

    def ours(self, theirs: Mapping[str, Any]) -> Fields:
        return {"embedding_scale": float(theirs["hidden_size"]) ** 0.5}

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True)
class LayerTypes:
    """Which layers have a sliding window: `layer_types`, or older ways to say it."""

    sliding: Callable[[Mapping[str, Any], int], bool]
    """Whether a layer has one, where `layer_types` is missing."""
    older: tuple[str, ...]
    """The keys that it reads."""
    enabled: str | None = None
    """The key that must be true for any layer to have one."""
    window: int = 4096
    """Where `sliding_window` is missing."""

    def names(self) -> Sequence[str]:
        enabled = () if self.enabled is None else (self.enabled,)
        return ("layer_types", "sliding_window", *self.older, *enabled)

    def pattern(self, theirs: Mapping[str, Any]) -> tuple[bool, ...]:
        """Every layer."""
        number, types = theirs.get("num_hidden_layers"), theirs.get("layer_types")
        if not isinstance(number, int):
            raise InputError(
                f'config.json has "num_hidden_layers": {shown(number)}, which should be a number'
            )
        if self.enabled is not None and not theirs.get(self.enabled):
            return (False,) * number
        if types is None:
            # Where a key enables windows, null for their size is one more way to have none.
            without = self.enabled is not None and theirs.get("sliding_window", self.window) is None
            return tuple(not without and self.sliding(theirs, layer) for layer in range(number))
        known = ("sliding_attention", "full_attention")
        if not isinstance(types, list) or len(types) != number or any(kind not in known for kind in types):
            raise InputError(
                f'config.json has "layer_types": {shown(types)}, which should be {number} times '
                f"{' or '.join(known)}"
            )
        return tuple(kind == "sliding_attention" for kind in types)

    def ours(self, theirs: Mapping[str, Any]) -> Fields:
        pattern = self.pattern(theirs)
        if not any(pattern):
            return {"attention.window": None, "window_pattern": (True,)}
        window = theirs.get("sliding_window", self.window)
        if window is None:
            raise InputError('config.json has layers with "sliding_attention", but no "sliding_window"')
        return {"attention.window": window, "window_pattern": shortest(pattern)}

    def theirs(self, config: GPTConfig) -> dict[str, Any]:
        window, pattern = config.attention.window, window_layers(config)
        written: dict[str, Any] = {
            "sliding_window": window,
            "layer_types": ["sliding_attention" if kept else "full_attention" for kept in pattern],
        }
        if window is None and self.enabled is None:  # transformers wants a number, which no layer reads
            written["sliding_window"] = self.window
        return written if self.enabled is None else {**written, self.enabled: any(pattern)}
