"""Weights from a checkpoint onto devices, each process reading only what its own devices hold."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from mjx.models.interop.name_map import NameMap
from mjx.models.interop.narrow import warn_of_non_finite
from mjx.models.interop.tensor_layout import Index, Tensor
from mjx.trees import Tree, flatten, unflatten


def load_parameters(
    names: NameMap,
    tensors: Mapping[str, Tensor],
    abstract: Tree,
    dtype: Any = None,
    precise: Collection[str] = (),
    optional: Collection[str] = (),
) -> Tree:
    """The parameters, one after the other; numbers that are not finite are warned of by name.

    The host holds one shard of one parameter at a time, beside what its devices hold.

    Args:
        names: its tensors ↔ our parameters.
        tensors: the checkpoint.
        abstract: shapes with shardings, of every parameter.
        dtype: of the parameters; None: as they are stored.
        precise: paths of those that are float32, whatever `dtype` is.
        optional: paths of those that are left out where the checkpoint has none of their tensors.

    Raises:
        InputError: the tensors are not those of the model, or cannot be read.
    """
    lacking = {path for path in optional if not any(name in tensors for name in names.sources(path))}
    names.check(tensors, lacking)
    abstract = unflatten({path: leaf for path, leaf in flatten(abstract).items() if path not in lacking})
    dtypes = {path: np.dtype(dtype or names.stored_dtype(tensors, path)) for path in flatten(abstract)}
    if dtype is not None:
        dtypes |= dict.fromkeys(set(precise) - lacking, np.dtype(np.float32))
    loaded = {}
    for path, leaf in flatten(abstract).items():
        shards = read_shards(
            leaf.shape,
            leaf.sharding.addressable_devices_indices_map(leaf.shape),
            lambda index, path=path: names.read(tensors, path, index, dtypes[path]),
        )
        loaded[path] = jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, shards)
    _warn_of_non_finite(loaded, names)
    return unflatten(loaded)


def read_shards(
    shape: tuple[int, ...],
    indices: Mapping[Any, Index | None],
    read: Callable[[Index], np.ndarray],
) -> list[jax.Array]:
    """The parts of an array that some devices hold, each on its device; `indices` has a part for each.

    What several of them hold alike is read once, and leaves the host before the next part is read.
    """
    holders: dict[tuple[tuple[int, int], ...], list[Any]] = {}
    for device, index in indices.items():
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index or (), shape, strict=True))
        holders.setdefault(bounds, []).append(device)
    shards: list[jax.Array] = []
    for bounds, devices in holders.items():
        part = read(tuple(slice(*bound) for bound in bounds))
        shards += jax.block_until_ready([jax.device_put(part, device) for device in devices])
        del part
    return shards


def _warn_of_non_finite(parameters: Mapping[str, jax.Array], names: NameMap) -> None:
    def finite(parameters: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {
            path: jnp.all(jnp.isfinite(leaf), axis=tuple(range(names.depth(path), leaf.ndim)))
            for path, leaf in parameters.items()
        }

    sharding = next(iter(parameters.values())).sharding
    # Every device holds all of these few flags, so that every process can read them.
    everywhere = (
        NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
    )
    bad = []
    for path, flags in jax.jit(finite, out_shardings=everywhere)(dict(parameters)).items():
        sources = names.sources(path)
        flags = np.asarray(flags.addressable_data(0)).reshape(-1)
        bad += [source for source, flag in zip(sources, flags, strict=True) if not flag]
    warn_of_non_finite("the checkpoint's", bad)
