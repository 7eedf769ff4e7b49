"""LayerNorm and RMSNorm."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx.errors import InputError
from mjx.models.common.parameter import parameter


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormConfig:
    """Which normalisation, and how its gain is stored."""

    kind: Literal["layernorm", "rmsnorm"] = "layernorm"
    """layernorm: mean and variance, gain and bias. rmsnorm: mean square and gain."""
    epsilon: float = 1e-5
    """Added to the variance (layernorm) or mean square (rmsnorm)."""
    zero_centered: bool = False
    """Store the gain minus one, so that weight decay pulls it to one (Megatron's LayerNorm-1p)."""

    def __post_init__(self):
        if not self.epsilon > 0:
            raise InputError(f"norm.epsilon = {self.epsilon} must be positive")

    def num_parameters(self, features: int) -> int:
        return 2 * features if self.kind == "layernorm" else features


class Norm(nnx.Module):
    """Normalises over all of its features; statistics in float32 (Ba et al. 2016; Zhang & Sennrich 2019)."""

    def __init__(self, config: NormConfig, features: Mapping[str, int]):
        """`features` are the last axes of what is normalised, name → size, as of a `Linear`."""
        shape = tuple(features.values())
        start = jnp.zeros if config.zero_centered else jnp.ones
        self.scale = parameter(start(shape, jnp.float32), *features)
        if config.kind == "layernorm":
            self.bias = parameter(jnp.zeros(shape, jnp.float32), *features)
        self.axes = tuple(range(-len(shape), 0))
        self.config = config

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        h = x.astype(jnp.float32)
        if self.config.kind == "layernorm":
            h = h - jnp.mean(h, axis=self.axes, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(h), axis=self.axes, keepdims=True) + self.config.epsilon)
        scale = self.scale[...].astype(jnp.float32)
        h = h * inverse * (1 + scale if self.config.zero_centered else scale)
        if self.config.kind == "layernorm":
            h = h + self.bias[...].astype(jnp.float32)
        return h.astype(x.dtype)
