"""LayerNorm and RMSNorm."""

import dataclasses
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
    """Normalises the last axis; statistics in float32 (Ba et al. 2016; Zhang & Sennrich 2019)."""

    def __init__(self, config: NormConfig, features: int, *, axis: str = "embed"):
        start = jnp.zeros if config.zero_centered else jnp.ones
        self.scale = parameter(start((features,), jnp.float32), axis)
        if config.kind == "layernorm":
            self.bias = parameter(jnp.zeros((features,), jnp.float32), axis)
        self.config = config

    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        h = x.astype(jnp.float32)
        if self.config.kind == "layernorm":
            h = h - jnp.mean(h, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(h), axis=-1, keepdims=True) + self.config.epsilon)
        scale = self.scale[...].astype(jnp.float32)
        h = h * inverse * (1 + scale if self.config.zero_centered else scale)
        if self.config.kind == "layernorm":
            h = h + self.bias[...].astype(jnp.float32)
        return h.astype(x.dtype)
