"""The mesh axes along which an array differs, inside of a `jax.shard_map`: its type has them."""

from typing import Any

import jax
from jaxtyping import Array


def varying_axes(*trees: Any) -> frozenset[str]:
    """Those of any of these arrays."""
    return frozenset().union(*(_varies(leaf) for leaf in jax.tree.leaves(trees)))


def varying(array: Array, axes: Any) -> Array:
    """Typed as one that differs along these axes: loops and branches want equal types."""
    more = tuple(axis for axis in axes if axis not in _varies(array))
    return jax.lax.pcast(array, more, to="varying") if more else array


def _varies(array: Any) -> frozenset[str]:
    kind = jax.typeof(array)
    manual = getattr(kind, "manual_axis_type", None)  # since JAX 0.12
    return frozenset(kind.vma if manual is None else manual.varying)
