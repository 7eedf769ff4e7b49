"""From an encoder's features to a language model's embeddings (Liu et al. 2023, section 4.1)."""

import dataclasses
from typing import Literal

from flax import nnx
from jaxtyping import Array, Float

from mjx.errors import InputError
from mjx.models.common.linear import Linear
from mjx.models.common.mlp import ACTIVATIONS, Activation
from mjx.models.common.norm import Norm, NormConfig
from mjx.sharding import shard


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """What stands between an encoder and a language model."""

    kind: Literal["mlp", "affine"] = "mlp"
    """Two layers with an activation between, or one."""
    features: int | None = None
    """Hidden features of an mlp; null: those of the language model."""
    activation: Activation = "gelu"
    """Between the layers of an mlp."""
    bias: bool = True
    """Add biases to all layers."""
    norm: NormConfig | None = None
    """In front of the first layer; null for none."""
    norm_of: Literal["joined", "patch"] = "joined"
    """What the norm is of, where several patches become one token: of all of them, or of each."""

    def __post_init__(self):
        if self.features is not None and self.features < 1:
            raise InputError(f"projector.features = {self.features} must be positive, or null")
        if self.kind == "affine" and self.features is not None:
            raise InputError(
                f"projector.features = {self.features} is of a hidden layer, which kind = affine does not "
                "have; leave it out, or choose kind = mlp"
            )

    def flops_per_token(self, read: int, embed: int) -> float:
        """Forward."""
        if self.kind == "affine":
            return 2 * read * embed
        hidden = self.features or embed
        return 2 * hidden * (read + embed)


class Projector(nnx.Module):
    """One layer or two on each of an encoder's features."""

    def __init__(
        self,
        config: ProjectorConfig,
        read: int,
        embed: int,
        *,
        merged: int = 1,
        std: float,
        rngs: nnx.Rngs,
    ):
        """`read` are the features of one of the `merged` patches that become one."""
        hidden = config.features or embed
        features, out = {"latent": read * merged}, {"embed": embed}
        normed = features if config.norm_of == "joined" else {"latent": read}
        self.norm = None if config.norm is None else Norm(config.norm, normed)
        self.up = (
            Linear(features, {"mlp": hidden}, bias=config.bias, std=std, rngs=rngs)
            if config.kind == "mlp"
            else None
        )
        self.down = Linear(
            features if self.up is None else {"mlp": hidden}, out, bias=config.bias, std=std, rngs=rngs
        )
        self.config, self.merged = config, merged

    def __call__(self, x: Float[Array, "batch patches latent"]) -> Float[Array, "batch made embed"]:
        if self.norm is not None and self.config.norm_of == "patch":
            x = self.norm(x)
        batch, patches, latent = x.shape
        x = x.reshape(batch, patches // self.merged, latent * self.merged)
        if self.norm is not None and self.config.norm_of == "joined":
            x = self.norm(x)
        if self.up is not None:
            x = shard(ACTIVATIONS[self.config.activation](self.up(x)), "batch", None, "mlp")
        return shard(self.down(x), "batch", None, "embed")
