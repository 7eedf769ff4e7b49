"""What stands between a stack and the head that makes logits of its states."""

import dataclasses

from flax import nnx
from jaxtyping import Array, Float

from mjx.models.common.linear import Linear
from mjx.models.common.mlp import ACTIVATIONS, Activation
from mjx.models.common.norm import Norm, NormConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadTransformConfig:
    """A layer, its activation and a norm (Devlin et al. 2019)."""

    activation: Activation = "gelu"
    """Of the layer."""
    norm: NormConfig = NormConfig()
    """Behind it."""
    bias: bool = True
    """Of the layer."""


class HeadTransform(nnx.Module):
    """`norm(activation(x · kernel + bias))`."""

    def __init__(self, config: HeadTransformConfig, embed: int, *, std: float, rngs: nnx.Rngs):
        self.dense = Linear({"embed": embed}, {"latent": embed}, bias=config.bias, std=std, rngs=rngs)
        self.norm = Norm(config.norm, {"latent": embed})
        self.config = config

    def __call__(self, x: Float[Array, "batch sequence embed"]) -> Float[Array, "batch sequence embed"]:
        return self.norm(ACTIVATIONS[self.config.activation](self.dense(x)))
