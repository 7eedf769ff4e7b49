"""A stack of residual sub-layers, scanned: tracing and compiling cost the same at any depth."""

import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int

from mjx.errors import InputError
from mjx.models.common.context import Context
from mjx.models.common.dropout import dropout
from mjx.models.common.norm import Norm, NormConfig
from mjx.models.common.parameter import stack_modules

Remat = Literal["none", "selective", "full"]
Caches = tuple[tuple[Any, ...], ...]
"""Segment → sub-layer of its unit → that mixer's cache (or None), with a leading `layers` axis."""


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


class Sublayer(nnx.Module):
    """Norm, mixer, norm, dropout: what the residual stream gets added."""

    def __init__(self, config: SublayerConfig, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs):
        features = {"embed": embed}
        self.norm = None if config.norm is None else Norm(config.norm, features)
        self.output_norm = None if config.output_norm is None else Norm(config.output_norm, features)
        # The attribute's name is part of every parameter's path: "attention" says more than "mixer".
        mixer = config.mixer.build(embed, std=std, output_std=output_std, rngs=rngs)
        setattr(self, config.mixer.name, mixer)
        self.config = config

    def __call__(
        self, x: Float[Array, "batch residual_sequence embed"], context: Context, cache: Any
    ) -> tuple[Float[Array, "batch residual_sequence embed"], Any]:
        mixer = getattr(self, self.config.mixer.name)
        mixer_context, key = context.split_dropout()
        y, cache = mixer(x if self.norm is None else self.norm(x), mixer_context, cache)
        y = y if self.output_norm is None else self.output_norm(y)
        return dropout(y, self.config.dropout, key), cache


class Stack(nnx.Module):
    """Sub-layers in order. Their parameters are stacked per segment: `segments.0.1.mlp.up.kernel` is
    that of the second sub-layer of the first segment's unit, of all its repeats, `layers` first."""

    def __init__(
        self,
        sublayers: tuple[SublayerConfig, ...],
        embed: int,
        *,
        remat: Remat = "none",
        std: float,
        output_std: float,
        rngs: nnx.Rngs,
    ):
        self.layout = find_segments(sublayers)
        self.remat: Remat = remat

        def unit_builder(segment: Segment):
            def build(key: jax.Array) -> nnx.List:
                rngs = nnx.Rngs(params=key)
                return nnx.List(
                    [
                        Sublayer(config, embed, std=std, output_std=output_std, rngs=rngs)
                        for config in segment.unit
                    ]
                )

            return build

        self.segments = nnx.List(
            [stack_modules(unit_builder(segment), rngs.params(), segment.repeats) for segment in self.layout]
        )

    def __call__(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        caches: Caches | None = None,
    ) -> tuple[Float[Array, "batch residual_sequence embed"], Caches | None]:
        """Returns the residual stream after all sub-layers, and the caches with the new tokens."""
        done, updated = 0, []
        for number, (segment, unit) in enumerate(zip(self.layout, self.segments, strict=True)):
            cache = caches[number] if caches is not None else (None,) * len(segment.unit)
            x, cache = self._run(segment, unit, x, context, cache, done)
            updated.append(cache)
            done += segment.repeats * len(segment.unit)
        return x, tuple(updated) if caches is not None else None

    def _run(self, segment: Segment, unit, x, context: Context, caches, first: int):
        """Scan one segment; `first` is the number of sub-layers before it."""

        def body(x: Array, step: tuple[nnx.List, Int[Array, ""], tuple[Any, ...]]):
            sublayers, index, caches = step
            updated, read = [], x
            for place, (sublayer, cache) in enumerate(zip(sublayers, caches, strict=True)):
                if not sublayer.config.parallel:
                    read = x
                y, cache = sublayer(read, context.fold(index + place), cache)
                x = x + y
                updated.append(cache)
            return x, tuple(updated)

        if self.remat != "none":
            body = jax.checkpoint(body, policy=_POLICIES[self.remat], prevent_cse=False)
        if segment.repeats == 1 and self.remat == "none":  # no loop, nor slices of stacked arrays
            x, caches = body(x, jax.tree.map(lambda leaf: leaf[0], (unit, jnp.array([first]), caches)))
            return x, jax.tree.map(lambda leaf: leaf[None], caches)
        indices = first + len(segment.unit) * jnp.arange(segment.repeats)
        return jax.lax.scan(body, x, (unit, indices, caches))

    def unrolled(self) -> "Stack":
        """The same stack with every repeat a segment, and its parameters in arrays of their own.

        Decoding needs it: scanned, every token would copy every layer's weights out of the stacked
        arrays, which costs as much as the products with them; and every layer's cache back into its own.
        """
        layout, segments = [], []
        for segment, unit in zip(self.layout, self.segments, strict=True):
            for repeat in range(segment.repeats):
                layout.append(Segment(segment.unit, 1))
                segments.append(jax.tree.map(functools.partial(_slice, repeat), unit))
        stack = copy.copy(self)
        stack.layout, stack.segments, stack.remat = tuple(layout), nnx.List(segments), "none"
        return stack

    def init_caches(self, batch: int, slots: int, dtype: DTypeLike) -> Caches:
        """Empty caches for `slots` tokens a row."""

        def empty(config: SublayerConfig, repeats: int) -> Any:
            cache = config.mixer.init_cache(batch, slots, dtype)
            return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (repeats, *leaf.shape)), cache)

        return tuple(
            tuple(empty(config, segment.repeats) for config in segment.unit) for segment in self.layout
        )


@jax.jit
def _slice(repeat: int | Int[Array, ""], leaf: Array) -> Array:
    """One layer of a stacked array; compiled once per shape, whichever layer it is."""
    return jax.lax.dynamic_slice_in_dim(leaf, repeat, 1)


_POLICIES = {
    # Keeps the results of the weight GEMMs; recomputes attention's scores and all element-wise work.
    "selective": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # Keeps the residual stream between units only.
    "full": jax.checkpoint_policies.nothing_saveable,
}


def locate(layout: tuple[Segment, ...], sublayer: int) -> tuple[int, int, int]:
    """Where the parameters of one sub-layer of the pattern are: (segment, place in its unit, repeat)."""
    for number, segment in enumerate(layout):
        size = len(segment.unit) * segment.repeats
        if sublayer < size:
            return number, sublayer % len(segment.unit), sublayer // len(segment.unit)
        sublayer -= size
    raise IndexError(f"sub-layer {sublayer} is beyond the pattern's end")
