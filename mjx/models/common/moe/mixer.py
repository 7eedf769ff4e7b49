"""The mixture of experts as a sub-layer."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from mjx.models.common.context import Context
from mjx.models.common.linear import Linear
from mjx.models.common.mlp import MLP
from mjx.models.common.moe.balance import left_out
from mjx.models.common.moe.config import MoEConfig
from mjx.models.common.moe.dispatch import dispatch
from mjx.models.common.moe.experts import Experts
from mjx.models.common.moe.router import Router
from mjx.models.common.pattern import Mixed
from mjx.sharding import shard


class MoE(nnx.Module):
    """`Σ probability · expert(x)` over the experts that the router chooses, and the shared expert's."""

    def __init__(self, config: MoEConfig, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs):
        self.router = Router(config, embed, std=std, rngs=rngs)
        self.experts = Experts(config, embed, std=std, output_std=output_std, rngs=rngs)
        features, latent = {"embed": embed}, {"latent": config.latent or 0}
        narrower, bias, mlp = config.latent is not None, config.mlp.bias, config.shared_mlp
        self.into_latent = Linear(features, latent, bias=bias, std=std, rngs=rngs) if narrower else None
        self.out_of_latent = (
            Linear(latent, features, bias=bias, std=output_std, rngs=rngs) if narrower else None
        )
        self.shared = None if mlp is None else MLP(mlp, embed, std=std, output_std=output_std, rngs=rngs)
        self.shared_gate = Linear(features, {}, std=std, rngs=rngs) if config.shared_gate else None
        self.config = config

    def __call__(
        self, x: Float[Array, "batch residual_sequence embed"], context: Context, cache: None = None
    ) -> Mixed:
        routing, said = self.router(x, context)
        read = x if self.into_latent is None else self.into_latent(x)
        read = shard(read, "batch", "residual_sequence", None)
        config = self.config if context.decoding is None else self.config.decoding
        y, missed = dispatch(config, read, routing, self.experts.weights)
        if self.out_of_latent is not None:
            y = self.out_of_latent(y)
        y = shard(y, "batch", "residual_sequence", "embed")
        if self.shared is not None:  # reads the stream, not what the experts wrote: both may run at once
            shared = self.shared(x, context).y
            if self.shared_gate is not None:
                shared = shared * jax.nn.sigmoid(self.shared_gate(x))[..., None]
            y = y + shared
        return Mixed(y, None, said.losses, left_out(said.statistics, routing.ids, missed, context))
