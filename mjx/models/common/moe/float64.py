"""Float64 for a few lines of a float32 program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def in_float64(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of arrays, and its gradient, computed in float64; what goes in and comes out is float32.

    JAX knows float64 only where it is switched on. It is so inside, forward and backward, and no float64
    array leaves.
    """

    def inside(*arrays: Any) -> Any:
        return jax.tree.map(_narrow, function(*jax.tree.map(_wide, arrays)))

    @jax.custom_vjp
    def run(*arrays: Any) -> Any:
        with jax.enable_x64(True):
            return inside(*arrays)

    def backward(arrays: Any, slopes: Any) -> Any:
        with jax.enable_x64(True):
            return jax.vjp(inside, *arrays)[1](slopes)

    run.defvjp(lambda *arrays: (run(*arrays), arrays), backward)
    return run


def _wide(array: Array) -> Array:
    return array.astype(jnp.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _narrow(array: Array) -> Array:
    return array.astype(jnp.float32 if jnp.issubdtype(array.dtype, jnp.floating) else jnp.int32)
