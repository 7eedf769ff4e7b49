"""What the parameters of a recurrence begin as: decays, time steps, convolutions."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mjx.bounds import check_scale
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeStepConfig:
    """The step that a recurrence takes at a token: softplus of a projection and a bias.

    The biases begin so that steps are spread over `min` to `max`, evenly in their logarithm.
    """

    min: float = 1e-3
    """The smallest step at the beginning."""
    max: float = 0.1
    """The largest step at the beginning."""
    floor: float = 1e-4
    """No step begins below it."""
    limit: tuple[float, float | None] | None = None
    """Keep steps within these bounds, at every token, the upper one null for none; null: do not."""

    def __post_init__(self):
        for name in ("min", "max", "floor"):
            check_scale(f"dt.{name}", getattr(self, name))
        if self.min > self.max:
            raise InputError(f"dt.min = {self.min} must not be above dt.max = {self.max}")
        low, high = self.limit or (0.0, None)
        if not (low >= 0 if high is None else 0 <= low < high):
            raise InputError(
                f"dt.limit = {[low, high]} must be two steps, the smaller first, or null for none"
            )

    def biases(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
        """What they begin as: softplus of each is its step."""
        low, high = math.log(self.min), math.log(self.max)
        step = jnp.exp(jax.random.uniform(key, shape, jnp.float32, low, high))
        step = jnp.maximum(step, self.floor)
        return step + jnp.log(-jnp.expm1(-step))

    def bounded(self, dt: Float[Array, "..."], bias: Float[Array, "..."]) -> Float[Array, "..."]:
        """The steps, in float32, within `limit`."""
        step = jax.nn.softplus(dt.astype(jnp.float32) + bias.astype(jnp.float32))
        return step if self.limit is None else jnp.clip(step, *self.limit)


def log_decays(
    key: Key[Array, ""], shape: tuple[int, ...], bounds: tuple[float, float]
) -> Float[Array, "..."]:
    """log(-A) with -A uniform within these bounds (Dao and Gu 2024)."""
    return jnp.log(jax.random.uniform(key, shape, jnp.float32, *bounds))


def log_decays_of_states(inner: int, state: int) -> Float[Array, "inner state"]:
    """log(-A) with -A = 1, 2, … along the states of each channel (S4D-Real, Gu et al. 2022)."""
    return jnp.log(jnp.broadcast_to(jnp.arange(1, state + 1, dtype=jnp.float32), (inner, state)))


def taps(key: Key[Array, ""], shape: tuple[int, ...], width: int) -> Float[Array, "..."]:
    """Of a convolution of each channel by itself, or its biases: uniform within ± 1/√width."""
    bound = width**-0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def step_weights(
    key: Key[Array, ""], shape: tuple[int, ...], scale: float, kind: Literal["random", "constant"]
) -> Float[Array, "..."]:
    """Of the map from a time step's few features: within ± scale / √features, uniform or at the bound."""
    bound = scale * shape[0] ** -0.5
    if kind == "constant":
        return jnp.full(shape, bound, jnp.float32)
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)
