"""How the tokens of a row lie on devices, where mesh axes split them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mjx.errors import InputError
from mjx.sharding import activation_spec, axes_per_dimension, current_rules, meant_mesh, mesh_shape


@dataclasses.dataclass(frozen=True)
class Split:
    """Of the tokens of a row over mesh axes; its methods are for inside of a `jax.shard_map` over them."""

    axes: tuple[str, ...]
    zigzag: bool = False
    """Whether a device has two parts, the one as far from the begin as the other from the end, as causal
    attention is even among devices; else it has one, in the devices' order."""

    @classmethod
    def over(cls, axes: tuple[str, ...]) -> "Split | None":
        """By the rules in force, over these axes of the mesh; None: there are none."""
        ordered = tuple(axis for axis in mesh_shape() if axis in axes)
        return cls(ordered, current_rules().zigzag) if ordered else None

    @property
    def parts(self) -> int:
        """Of a device."""
        return 2 if self.zigzag else 1

    @property
    def devices(self) -> int:
        """Over which a row lies."""
        return math.prod(jax.lax.axis_size(axis) for axis in self.axes)

    def apart(self, array: Array) -> Array:
        """`[batch, tokens, …]` of a device, with its parts as rows of their own: `[part · batch, …]`."""
        if not self.zigzag:
            return array
        batch, tokens = array.shape[:2]
        parts = array.reshape(batch, self.parts, tokens // self.parts, *array.shape[2:])
        return jnp.moveaxis(parts, 1, 0).reshape(-1, *parts.shape[2:])

    def together(self, array: Array) -> Array:
        """The other way."""
        if not self.zigzag:
            return array
        parts = jnp.moveaxis(array.reshape(self.parts, -1, *array.shape[1:]), 0, 1)
        return parts.reshape(parts.shape[0], -1, *parts.shape[3:])

    def gathered(self, array: Array) -> Array:
        """Of rows `[part · batch, …]` those of all devices, in the sequence's order: `[place, batch, …]`."""
        every = jax.lax.all_gather(array.reshape(self.parts, -1, *array.shape[1:]), self.axes)
        if not self.zigzag:
            return every[:, 0]
        return jnp.concatenate([every[:, 0], every[::-1, 1]])

    def whole(self, array: Array) -> Array:
        """`[batch, tokens, …]` of a device, with those of all devices, in the sequence's order."""
        every = jnp.moveaxis(self.gathered(self.apart(array)), 0, 1)
        return every.reshape(every.shape[0], -1, *every.shape[3:])

    @property
    def places(self) -> Int[Array, " parts"]:
        """Which of the sequence's parts this device has."""
        me = jax.lax.axis_index(self.axes)
        return jnp.stack([me, 2 * self.devices - 1 - me]) if self.zigzag else me[None]

    def own(self, places: Array) -> Array:
        """This device's rows of what `gathered` gives."""
        return places[self.places].reshape(-1, *places.shape[2:])


def token_order(tokens: int) -> Int[np.ndarray, " tokens"] | None:
    """Which token of a row stands where, from a model's entrance to its loss; None: in the row's order.

    Raises:
        InputError: a row cannot be cut into the parts that `sharding.zigzag` asks for.
    """
    (axes,) = axes_per_dimension(activation_spec(("sequence",), (tokens,)), 1)
    if not (axes and current_rules().zigzag):
        return None
    devices = math.prod(mesh_shape()[axis] for axis in axes)
    if tokens % (2 * devices):
        raise InputError(
            f"sharding.zigzag = true cuts a row into {2 * devices} parts, two for each device that has some "
            f"of it, but a row of {tokens} tokens is no multiple of that; choose another length, or false"
        )
    parts = np.arange(tokens, dtype=np.int32).reshape(2 * devices, -1)
    return np.stack([parts[:devices], parts[: devices - 1 : -1]], axis=1).reshape(-1)


def in_order(order: Int[np.ndarray, " tokens"] | None, array: Array) -> Array:
    """`[batch, tokens, …]` with each place's token of `order`."""
    return array if order is None else jnp.take(array, order, axis=1, unique_indices=True)


def in_row_order(order: Int[np.ndarray, " tokens"] | None, array: Array) -> Array:
    """The other way."""
    return in_order(None if order is None else np.argsort(order), array)


def divided_length(sequence: int) -> int:
    """The fewest tokens, these among them, that the mesh divides by its rules."""
    sizes, rules = meant_mesh()
    inside, between = (
        math.prod(sizes.get(axis, 1) for axis in rules.mesh_axes(name))
        for name in ("sequence", "residual_sequence")
    )
    parts = math.lcm(inside * (2 if rules.zigzag and inside > 1 else 1), between)
    return -(-sequence // parts) * parts
