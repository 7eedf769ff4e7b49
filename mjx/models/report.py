"""What a model says of a batch besides the number to minimise: losses, and statistics.

Both are additive: what the parts of a batch say is put together to what the batch says.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Over = Literal["sum", "max", "min"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Loss:
    """A sum over samples or tokens, divided by a count of the whole batch."""

    total: Float[Array, ""]
    count: str = dataclasses.field(metadata={"static": True})
    """The name of its divisor among the model's `counts`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Statistic:
    """A number (or several) of a part of a batch, and how those of all parts become one."""

    array: Array
    over: Over = dataclasses.field(default="sum", metadata={"static": True})

    def join(self, other: "Statistic") -> "Statistic":
        """That of both parts together."""
        return Statistic(_JOIN[self.over](self.array, other.array), self.over)

    def empty(self) -> "Statistic":
        """That of no part at all, in the shape of this one."""
        shape, dtype = self.array.shape, self.array.dtype
        if self.over == "sum":
            return Statistic(jnp.zeros(shape, dtype), self.over)
        limits = jnp.finfo(dtype) if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype)
        worst = limits.min if self.over == "max" else limits.max
        return Statistic(jnp.full(shape, worst, dtype), self.over)

    def reduce(self) -> Array:
        """Over its leading axis."""
        return _REDUCE[self.over](self.array, axis=0)

    def over_devices(self, axis: str) -> "Statistic":
        """That of all devices along a mesh axis, inside of a `jax.shard_map` over it."""
        return Statistic(_OVER_DEVICES[self.over](self.array, axis), self.over)


_JOIN = {"sum": jnp.add, "max": jnp.maximum, "min": jnp.minimum}
_REDUCE = {"sum": jnp.sum, "max": jnp.max, "min": jnp.min}
_OVER_DEVICES = {"sum": jax.lax.psum, "max": jax.lax.pmax, "min": jax.lax.pmin}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Report:
    """Of a batch, or of a part of it."""

    losses: Mapping[str, Loss]
    """`loss` among them; without gradients."""
    statistics: Any = dataclasses.field(default_factory=dict)
    """Nested dicts of `Statistic`, at the paths of the parameters of what says them."""
    rows: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    """Of each row of a batch, where the model is evaluated and `scores` asks for it; never in training."""

    def join(self, other: "Report") -> "Report":
        """That of both parts together."""
        return Report(
            jax.tree.map(jnp.add, self.losses, other.losses),
            jax.tree.map(Statistic.join, self.statistics, other.statistics, is_leaf=is_statistic),
        )

    def empty(self) -> "Report":
        """Of no part at all, in the shape of this one (arrays, or their shapes)."""
        return Report(
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.losses),
            jax.tree.map(Statistic.empty, self.statistics, is_leaf=is_statistic),
        )

    def over_devices(self, axis: str) -> "Report":
        """That of the parts that all devices along a mesh axis have, inside of a `jax.shard_map` over it."""
        return Report(
            jax.lax.psum(dict(self.losses), axis),
            jax.tree.map(lambda one: one.over_devices(axis), self.statistics, is_leaf=is_statistic),
        )


def is_statistic(node: Any) -> bool:
    """Whether this is a `Statistic`, for `jax.tree`'s `is_leaf`."""
    return isinstance(node, Statistic)
