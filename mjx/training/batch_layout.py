"""Rows of a batch on their way to the devices: who reads what, and how it becomes one global array."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Int

from mjx.batch import BatchArrays
from mjx.models.family import Batch
from mjx.sharding import Rules


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """Where the arrays of a batch live on a mesh."""

    arrays: BatchArrays
    shardings: Mapping[str, NamedSharding]

    @property
    def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes with shardings, for compiling ahead of time."""
        return {
            name: jax.ShapeDtypeStruct(array.shape, np.dtype(array.dtype), sharding=self.shardings[name])
            for name, array in self.arrays.items()
        }

    @functools.cached_property
    def local_rows(self) -> Int[np.ndarray, " rows"]:
        """The rows of the global batch that this process's devices need, ascending."""
        name, array = next(iter(self.arrays.items()))
        indices = self.shardings[name].addressable_devices_indices_map(array.shape).values()
        rows = [np.arange(*index[0].indices(array.shape[0])) for index in indices if index is not None]
        return np.unique(np.concatenate(rows))

    def place(self, local: Mapping[str, np.ndarray]) -> Batch:
        """Global arrays from this process's rows (`local_rows`, in that order); all of them may be shorter
        along `sequence` than was said, in every process alike.

        Raises:
            ValueError: an array is missing, or its shape is not that of the local rows.
        """
        rows = self.local_rows
        return {name: self._place(name, local[name], rows) for name in self.arrays}

    def _place(self, name: str, local: np.ndarray, rows: Int[np.ndarray, " rows"]) -> jax.Array:
        wanted = self.arrays[name]
        shape = tuple(
            min(had, said) if axis == "sequence" else said
            for axis, said, had in zip(wanted.axes, wanted.shape, local.shape, strict=False)
        )
        if local.ndim != len(wanted.shape) or local.shape != (len(rows), *shape[1:]):
            raise ValueError(
                f"batch array '{name}' has the shape {local.shape}; this process's rows are "
                f"{(len(rows), *wanted.shape[1:])}"
            )
        local = np.asarray(local, wanted.dtype)

        def shard_of(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # JAX asks for nothing where this process has no device
            start, stop, _ = index[0].indices(shape[0])
            first = int(np.searchsorted(rows, start))
            return local[(slice(first, first + stop - start), *index[1:])]

        return jax.make_array_from_callback(shape, self.shardings[name], shard_of)


def plan_batch(arrays: BatchArrays, mesh: Mesh, rules: Rules) -> BatchLayout:
    """Lay a batch out over a mesh.

    Raises:
        InputError: its rows or tokens do not divide over the mesh.
    """
    shape = dict(mesh.shape)
    return BatchLayout(
        arrays,
        {
            name: NamedSharding(
                mesh, rules.spec(array.axes, array.shape, shape, array=f"batch array '{name}'")
            )
            for name, array in arrays.items()
        },
    )
