"""Dropout with explicit keys."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mjx.errors import InputError


def check_rate(name: str, rate: float) -> None:
    """Raise unless `rate` is a probability below one."""
    if not 0 <= rate < 1:
        raise InputError(f"{name} = {rate} must be at least 0 and below 1")


def dropout(x: Float[Array, "*shape"], rate: float, key: Key[Array, ""] | None) -> Float[Array, "*shape"]:
    """Zero a share `rate` of `x` and scale the rest up; without a key (evaluation), `x` itself.

    The mask is a function of the key and of the global shape, never of the mesh.
    """
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)
