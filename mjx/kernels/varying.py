"""Over which axes of a mesh a value varies inside of `jax.shard_map`.

JAX derives it for what it differentiates itself; what makes its own gradients, and kernels, have to say it.
"""

import jax
from jaxtyping import Array


def axes_of(array: Array) -> frozenset[str]:
    """Empty outside of `shard_map`, and inside where it does not look (`check_vma=False`)."""
    return jax.typeof(array).manual_axis_type.varying


def vary_over(array: Array, axes: frozenset[str]) -> Array:
    """The same values, which count as different along these axes too: a gradient is then summed over them."""
    more = tuple(sorted(axes - axes_of(array)))
    return jax.lax.pcast(array, more, to="varying") if more else array


def vary_alike(*arrays: Array) -> tuple[Array, ...]:
    """Each varies over all axes that one of them varies over."""
    axes = frozenset[str]().union(*(axes_of(array) for array in arrays))
    return tuple(vary_over(array, axes) for array in arrays)
