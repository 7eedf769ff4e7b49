"""Each device computes its own rows and heads of a recurrence, as all of it needs no other's."""

from collections.abc import Callable, Mapping

import jax
from jaxtyping import Array

from mjx.sharding import activation_spec, mesh_shape

Axes = tuple[str | None, ...]
Named = dict[str, Array]


def on_shares(
    compute: Callable[[Named], Named],
    arrays: Mapping[str, Array | None],
    axes: Mapping[str, Axes],
    outputs: Mapping[str, str],
) -> Named:
    """`compute`, inside `jax.shard_map` where there is a mesh.

    XLA does not look into kernels, and of a loop over the tokens it could split neither the tokens nor,
    by itself, groups of heads: each device computes whole sequences of its share of rows and heads.

    Args:
        compute: takes the arrays that are not None, by name, and returns others.
        arrays: what it is given.
        axes: of each array; tokens have none.
        outputs: what it returns, each with the name of an array that is laid out in the same way.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    if all(size == 1 for size in mesh_shape().values()):
        return compute(given)
    specs = {name: activation_spec(axes[name], array.shape) for name, array in given.items()}
    return jax.shard_map(
        compute,
        in_specs=(specs,),
        out_specs={name: specs[like] for name, like in outputs.items()},
        check_vma=False,  # kernels do not say over what their results vary
    )(given)
