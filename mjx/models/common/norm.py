"""LayerNorm and RMSNorm."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx.bounds import check_scale
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
    bias: bool = True
    """Of layernorm; an rmsnorm has none."""

    @property
    def biased(self) -> bool:
        """Whether there is a bias."""
        return self.bias and self.kind == "layernorm"

    def __post_init__(self):
        check_scale("norm.epsilon", self.epsilon, least=1e-20)  # its -3/2th power is in the gradient


class Norm(nnx.Module):
    """Normalises over all of its features; statistics in float32 (Ba et al. 2016; Zhang & Sennrich 2019)."""

    def __init__(self, config: NormConfig, features: Mapping[str, int]):
        """`features` are the last axes of what is normalised, name → size, as of a `Linear`."""
        shape = tuple(features.values())
        start = jnp.zeros if config.zero_centered else jnp.ones
        self.scale = parameter(start(shape, jnp.float32), *features)
        if config.biased:
            self.bias = parameter(jnp.zeros(shape, jnp.float32), *features)
        self.axes = tuple(range(-len(shape), 0))
        self.config = config

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        bias = self.bias[...] if self.config.biased else None
        return normalize(self.config, self.axes, x, self.scale[...], bias)


@functools.partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)
def normalize(
    config: NormConfig, axes: tuple[int, ...], x: Array, scale: Array | None, bias: Array | None
) -> Array:
    """Over these axes; without `scale` the gain is one.

    The backward pass keeps `x` alone and computes the rest again, as a fused kernel would: in float32 the
    rest is four times as large."""
    h = x.astype(jnp.float32)
    if config.kind == "layernorm":
        h = h - jnp.mean(h, axis=axes, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(h), axis=axes, keepdims=True) + config.epsilon)
    h = h * inverse
    if scale is not None:
        scale = scale.astype(jnp.float32)
        h = h * (1 + scale if config.zero_centered else scale)
    if bias is not None:
        h = h + bias.astype(jnp.float32)
    return h.astype(x.dtype)
