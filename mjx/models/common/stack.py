"""A stack of residual sub-layers, scanned: tracing and compiling cost the same at any depth."""

import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int

from mjx.errors import InputError
from mjx.models.common.context import Context, Shared
from mjx.models.common.dropout import dropout
from mjx.models.common.linear import scaled
from mjx.models.common.norm import Norm
from mjx.models.common.parameter import parameter, stack_modules
from mjx.models.common.pattern import (
    CacheSizes,
    Mixed,
    MixerConfig,
    Segment,
    SublayerConfig,
    find_segments,
)
from mjx.models.family import Metrics, Remat, on_one_cpu
from mjx.models.report import Statistic
from mjx.trees import Tree

_STRAIGHT = 8
"""Up to so many repeats, one CPU runs them without a loop: every array that the backward pass keeps would be
copied into a stack and out of it, a tenth of a step; each repeat compiles for 0.1 s. Not where something is
computed again: without a loop XLA would take it from the forward pass instead."""

Caches = tuple[tuple[Any, ...], ...]
"""Segment → sub-layer of its unit → that mixer's cache (or None), with a leading `layers` axis."""


class Run(NamedTuple):
    """What a stack makes of the residual stream."""

    x: Float[Array, "batch residual_sequence embed"]
    caches: Caches | None
    losses: Mapping[str, Float[Array, ""]]
    """Of all layers together."""
    statistics: Tree
    """At the paths of the parameters of the mixers that say them; arrays have a leading `layers` axis."""


class Sublayer(nnx.Module):
    """Norm, mixer, norm, dropout: what the residual stream gets added."""

    def __init__(self, config: SublayerConfig, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs):
        features = {"embed": embed}
        self.norm = None if config.norm is None else Norm(config.norm, features)
        self.output_norm = None if config.output_norm is None else Norm(config.output_norm, features)
        # The attribute's name is part of every parameter's path: "attention" says more than "mixer".
        mixer = config.mixer.build(embed, std=std, output_std=output_std, rngs=rngs)
        setattr(self, config.mixer.name, mixer)
        gain = config.output_gain
        self.output_gain = None if gain is None else parameter(jnp.full((embed,), gain), "embed")
        after = config.residual.norm
        self.residual_norm = None if after is None else Norm(after, features)
        self.config = config

    def __call__(
        self, x: Float[Array, "batch residual_sequence embed"], context: Context, cache: Any
    ) -> Mixed:
        """Of what `read` gives."""
        mixer = getattr(self, self.config.mixer.name)
        mixer_context, key = context.split_dropout()
        mixed = mixer(scaled(x, self.config.input_scale), mixer_context, cache)
        y = mixed.y if self.output_norm is None else self.output_norm(mixed.y)
        y = y if self.output_gain is None else y * self.output_gain[...].astype(y.dtype)
        return mixed._replace(y=dropout(y, self.config.dropout, key))

    def read(
        self, x: Float[Array, "batch residual_sequence embed"]
    ) -> Float[Array, "batch residual_sequence embed"]:
        """The residual stream behind the norm."""
        return x if self.norm is None else self.norm(x)

    def join(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        y: Float[Array, "batch residual_sequence embed"],
    ) -> Float[Array, "batch residual_sequence embed"]:
        """The residual stream with the sub-layer's output in it."""
        x = x + scaled(y, self.config.residual.scale)
        return x if self.residual_norm is None else self.residual_norm(x)


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
        shared = dict.fromkeys(shared for sublayer in sublayers for shared in sublayer.mixer.shared)
        self.tables: tuple[Shared, ...] = tuple(shared)
        built = [
            (shared.name, shared.build(embed, std=std, output_std=output_std, rngs=rngs))
            for shared in self.tables
        ]
        named = [(name, module) for name, module in built if module is not None]
        self.shared = nnx.Dict(dict(named))
        if len(self.shared) < len(named):
            names = [name for name, _ in named]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(
                f"layers of one stack share parameters named '{twice}' but configure them differently; "
                "give all that have them the same"
            )

    def __call__(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        caches: Caches | None = None,
        so_far: Tree | None = None,
    ) -> Run:
        """All sub-layers; `caches` come back with the new tokens.

        `so_far` are the statistics of the batch's earlier parts, as this returns them.
        """
        context = dataclasses.replace(context, entered=x)
        context = context.with_tables({table: self.shared.get(table.name) for table in self.tables})
        done, updated, losses, statistics = 0, [], {}, {}
        for number, (segment, unit) in enumerate(zip(self.layout, self.segments, strict=True)):
            cache = caches[number] if caches is not None else (None,) * len(segment.unit)
            before = _at(so_far, "segments", str(number))
            x, (cache, more, said) = self._run(segment, unit, x, context, cache, before, done)
            updated.append(cache)
            for name, values in more.items():
                losses[name] = losses.get(name, 0.0) + jnp.sum(values)
            if said:
                statistics[str(number)] = said
            done += segment.repeats * len(segment.unit)
        tree = {"segments": statistics} if statistics else {}
        return Run(x, tuple(updated) if caches is not None else None, losses, tree)

    def _run(self, segment: Segment, unit, x, context: Context, caches, so_far: Tree, first: int):
        """Scan one segment; `first` is the number of sub-layers before it."""

        def body(x: Array, step: tuple[nnx.List, Int[Array, ""], tuple[Any, ...], Tree]):
            sublayers, index, caches, so_far = step
            updated, losses, statistics, stream, read, beside = [], {}, {}, x, x, None
            for place, (sublayer, cache) in enumerate(zip(sublayers, caches, strict=True)):
                if not sublayer.config.parallel:
                    stream, beside = x if beside is None else x + beside, None
                if not sublayer.config.shares_norm:
                    read = sublayer.read(stream)
                name = sublayer.config.mixer.name
                before = _at(so_far, str(place), name) or None
                mixed = sublayer(read, context.of_sublayer(index + place, before), cache)
                if sublayer.config.aside:
                    beside = scaled(mixed.y, sublayer.config.residual.scale)
                else:
                    x = sublayer.join(read if sublayer.config.residual.normed else x, mixed.y)
                updated.append(mixed.cache)
                for loss, value in mixed.losses.items():
                    losses[loss] = losses.get(loss, 0.0) + value
                if mixed.statistics:
                    statistics[str(place)] = {name: dict(mixed.statistics)}
            return x, (tuple(updated), losses, statistics)

        if self.remat != "none":
            body = jax.checkpoint(body, policy=_POLICIES[self.remat], prevent_cse=False)
        if segment.repeats == 1 and self.remat == "none":  # no loop, nor slices of stacked arrays
            step = (unit, jnp.array([first]), caches, so_far)
            x, said = body(x, jax.tree.map(lambda leaf: leaf[0], step))
            return x, jax.tree.map(lambda leaf: leaf[None], said)
        indices = first + len(segment.unit) * jnp.arange(segment.repeats)
        straight = self.remat == "none" and segment.repeats <= _STRAIGHT and on_one_cpu()
        steps = (unit, indices, caches, so_far)
        return jax.lax.scan(body, x, steps, unroll=segment.repeats if straight else 1)

    def first_read(
        self, x: Float[Array, "batch residual_sequence embed"]
    ) -> Float[Array, "batch residual_sequence embed"]:
        """What the mixer of the first sub-layer reads of the residual stream."""
        first: Sublayer = jax.tree.map(lambda leaf: leaf[0], self.segments[0])[0]
        return first.read(x)

    def front(self, sublayers: int) -> "Stack":
        """The first sub-layers alone.

        Raises:
            ValueError: they end within a unit that is repeated.
        """
        layout, segments, left = [], [], sublayers
        for segment, unit in zip(self.layout, self.segments, strict=True):
            repeats = min(left // len(segment.unit), segment.repeats)
            left -= repeats * len(segment.unit)
            if repeats:
                layout.append(Segment(segment.unit, repeats))
                segments.append(jax.tree.map(lambda leaf, repeats=repeats: leaf[:repeats], unit))
            if repeats < segment.repeats:
                break
        if left:
            raise ValueError(f"a stack cannot be cut behind {sublayers} sub-layers")
        stack = copy.copy(self)
        stack.layout, stack.segments = tuple(layout), nnx.List(segments)
        return stack

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

    def init_caches(self, sizes: CacheSizes, dtype: DTypeLike) -> Caches:
        """Empty caches."""

        def empty(config: SublayerConfig, repeats: int) -> Any:
            cache = config.mixer.init_cache(sizes, dtype)
            return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (repeats, *leaf.shape)), cache)

        return tuple(
            tuple(empty(config, segment.repeats) for config in segment.unit) for segment in self.layout
        )

    def after_step(self, parameters: Tree, statistics: Tree) -> Tree:
        """The stack's parameters after what its mixers do to them by the batch's statistics."""
        changed = parameters
        for path, mixer, values in self._mixers(statistics):
            if type(mixer).after_step is not MixerConfig.after_step:
                new = jax.vmap(mixer.after_step)(_at(parameters, *path), values)
                changed = _replaced(changed, path, new)
        return changed

    def summary(self, statistics: Tree) -> Metrics:
        """What the mixers make of the batch's statistics, over all layers."""
        found: dict[str, Statistic] = {}
        for _, mixer, values in self._mixers(statistics):
            for name, each in jax.vmap(mixer.summary)(values).items():
                layers = Statistic(each.reduce(), each.over)
                found[name] = found[name].join(layers) if name in found else layers
        return {name: statistic.array for name, statistic in found.items()}

    def _mixers(self, statistics: Tree) -> Iterator[tuple[tuple[str, ...], MixerConfig, dict[str, Array]]]:
        """(path, config, statistics) of each mixer of a unit that has said some."""
        for number, places in statistics.get("segments", {}).items():
            for place, named in places.items():
                mixer = self.layout[int(number)].unit[int(place)].mixer
                values = {name: statistic.array for name, statistic in named[mixer.name].items()}
                yield ("segments", number, place, mixer.name), mixer, values


@jax.jit
def _slice(repeat: int | Int[Array, ""], leaf: Array) -> Array:
    """One layer of a stacked array; compiled once per shape, whichever layer it is."""
    return jax.lax.dynamic_slice_in_dim(leaf, repeat, 1)


def _at(tree: Tree | None, *path: str) -> Tree:
    """What nested dicts have at a path; nothing where it ends before."""
    for key in path:
        tree = (tree or {}).get(key)
    return tree or {}


def _replaced(tree: Tree, path: tuple[str, ...], value: Any) -> Tree:
    """The tree with another value at a path."""
    if not path:
        return value
    return {**tree, path[0]: _replaced(tree[path[0]], path[1:], value)}


_POLICIES = {
    # Keeps the results of the weight GEMMs; recomputes attention's scores and all element-wise work.
    "selective": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # Keeps the residual stream between units only.
    "full": jax.checkpoint_policies.nothing_saveable,
}
