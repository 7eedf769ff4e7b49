"""Sizes and arrays rounded up to what the blocks of a GPU kernel ask for."""

import jax.numpy as jnp
from jaxtyping import Array


def round_up(size: int, multiple: int) -> int:
    """The next multiple."""
    return -(-size // multiple) * multiple


def power_of_two(size: int) -> int:
    """The next power of two, which Triton asks for."""
    return 1 << (size - 1).bit_length()


def pad_to(array: Array, sizes: dict[int, int]) -> Array:
    """Zeros behind the end. `sizes`: axis → its size then."""
    padding = [(0, sizes.get(axis, size) - size) for axis, size in enumerate(array.shape)]
    return jnp.pad(array, padding) if any(after for _, after in padding) else array
