"""Each device computes its own rows, heads and tokens of a recurrence."""

from collections.abc import Callable, Mapping

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array

from mjx.models.common.split import Split
from mjx.sharding import activation_spec, axes_per_dimension, mesh_shape

Axes = tuple[str | None, ...]
Named = dict[str, Array]


def on_shares(
    compute: Callable[[Split | None, Named], Named],
    arrays: Mapping[str, Array | None],
    axes: Mapping[str, Axes],
    outputs: Mapping[str, str],
) -> Named:
    """`compute`, inside `jax.shard_map` where there is a mesh.

    XLA does not look into kernels, and of a loop over the tokens it could split neither the tokens nor,
    by itself, groups of heads.

    Args:
        compute: takes how the tokens of a row are split over devices (None: they are not), and the arrays
            that are not None, by name, each part of a row as a row of its own; returns others.
        arrays: what it is given.
        axes: of each array.
        outputs: what it returns, each with the name of an array that is laid out in the same way.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    if all(size == 1 for size in mesh_shape().values()):
        return compute(None, given)
    specs = {name: activation_spec(axes[name], array.shape) for name, array in given.items()}
    split = Split.over(tuple(axis for name in given for axis in _of_tokens(axes[name], specs[name])))

    def local(given: Named) -> Named:
        if split is None:
            return compute(None, given)
        given = {name: split.apart(x) if "sequence" in axes[name] else x for name, x in given.items()}
        return {
            name: split.together(x) if "sequence" in axes[outputs[name]] else x
            for name, x in compute(split, given).items()
        }

    return jax.shard_map(
        local,
        in_specs=(specs,),
        out_specs={name: specs[like] for name, like in outputs.items()},
        check_vma=False,  # kernels do not say over what their results vary
    )(given)


def _of_tokens(axes: Axes, spec: PartitionSpec) -> tuple[str, ...]:
    """The mesh axes that split the tokens of an array."""
    return axes_per_dimension(spec, len(axes))[axes.index("sequence")] if "sequence" in axes else ()
