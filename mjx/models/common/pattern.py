"""The pattern of a stack: its sub-layers in order, what repeats in them, and where their parameters are."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, Protocol

from flax import nnx
from jaxtyping import DTypeLike

from mjx.errors import InputError
from mjx.models.common.norm import NormConfig


class MixerConfig(Protocol):
    """What a sub-layer is made of: attention, an MLP, … A frozen dataclass with these members."""

    @property
    def name(self) -> str:
        """The mixer's name in parameter paths."""
        ...

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> Callable:
        """The module: `(x, context, cache) → (y, cache)`."""
        ...

    def init_cache(self, batch: int, slots: int, dtype: DTypeLike) -> Any:
        """An empty cache for decoding, or None."""
        ...

    def num_parameters(self, embed: int) -> int: ...

    def flops_per_token(self, embed: int, sequence: int) -> float:
        """Of the forward pass."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class SublayerConfig:
    """One residual sub-layer: `x + dropout(output_norm(mixer(norm(x))))`."""

    mixer: MixerConfig
    norm: NormConfig | None
    """On what the mixer reads; null: it reads the residual stream as it is."""
    output_norm: NormConfig | None = None
    """On the mixer's output, before it joins the residual stream (OLMo 2; with `norm` too: Gemma 2)."""
    parallel: bool = False
    """Read the residual stream that the sub-layer in front read, not what that one made of it (GPT-J)."""
    dropout: float = 0.0
    """On the output, before it joins the residual stream."""

    def num_parameters(self, embed: int) -> int:
        norms = [norm.num_parameters(embed) for norm in (self.norm, self.output_norm) if norm is not None]
        return sum(norms) + self.mixer.num_parameters(embed)


@dataclasses.dataclass(frozen=True)
class Segment:
    """A unit of sub-layers that is repeated."""

    unit: tuple[SublayerConfig, ...]
    repeats: int


def find_segments(sublayers: tuple[SublayerConfig, ...]) -> tuple[Segment, ...]:
    """The pattern as repeated units, such that as few sub-layers as possible are traced.

    `*-*-*-` is one unit `*-` three times; DeepSeek's `*-` × 3, `*E` × 58 are two segments. Among equal
    ways it takes the one with the fewest segments. A sub-layer and those parallel to it stay together.

    Raises:
        InputError: the first sub-layer is parallel, to nothing.
    """
    groups = _parallel_groups(sublayers)
    ids = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    word = [ids[group] for group in groups]
    starts = [0, *itertools.accumulate(map(len, groups))]
    # best[i]: the cheapest way to write word[i:], as (sub-layers traced, segments, unit, repeats).
    best: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * (len(word) + 1)
    for start in range(len(word) - 1, -1, -1):
        options = []
        for unit in range(1, len(word) - start + 1):
            repeats = 1
            while True:
                rest = best[start + unit * repeats]
                traced = starts[start + unit] - starts[start]
                options.append((traced + rest[0], 1 + rest[1], unit, repeats))
                begin = start + unit * repeats
                if word[begin : begin + unit] != word[start : start + unit]:
                    break
                repeats += 1
            if unit * repeats >= len(word) - start and repeats > 1:
                break
        best[start] = min(options)
    segments, start = [], 0
    while start < len(word):
        _, _, unit, repeats = best[start]
        segments.append(Segment(sublayers[starts[start] : starts[start + unit]], repeats))
        start += unit * repeats
    return tuple(segments)


def _parallel_groups(sublayers: tuple[SublayerConfig, ...]) -> list[tuple[SublayerConfig, ...]]:
    """Each sub-layer that is not parallel, with those that read the same residual stream."""
    if sublayers and sublayers[0].parallel:
        raise InputError("the first sub-layer of a stack has parallel = true, but nothing is in front of it")
    heads = [at for at, sublayer in enumerate(sublayers) if not sublayer.parallel]
    return [sublayers[at:end] for at, end in itertools.pairwise([*heads, len(sublayers)])]


def places(sublayers: tuple[SublayerConfig, ...]) -> tuple[tuple[str, int], ...]:
    """Where each sub-layer's parameters are: (path within the stack, index on their `layers` axis).

    The path is `segments.S.P`, of the sub-layer at place P in the unit of segment S. It is a checkpoint's
    layout, and written nowhere else.
    """
    found = []
    for number, segment in enumerate(find_segments(sublayers)):
        for repeat in range(segment.repeats):
            found += [(f"segments.{number}.{place}", repeat) for place in range(len(segment.unit))]
    return tuple(found)
