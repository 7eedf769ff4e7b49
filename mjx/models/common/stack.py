"""A stack of residual sub-layers, scanned: tracing and compiling cost the same at any depth."""

import copy
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Int

from mjx.models.common.context import Context
from mjx.models.common.dropout import dropout
from mjx.models.common.norm import Norm
from mjx.models.common.parameter import stack_modules
from mjx.models.common.pattern import Segment, SublayerConfig, find_segments

Remat = Literal["none", "selective", "full"]
Caches = tuple[tuple[Any, ...], ...]
"""Segment → sub-layer of its unit → that mixer's cache (or None), with a leading `layers` axis."""


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
