"""What is said of a whole picture, by a learned query (Zhai et al. 2022, section 3.2; Lee et al. 2019)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from mjx.models.common.linear import Linear
from mjx.models.common.mlp import MLP, activate
from mjx.models.common.norm import Norm
from mjx.models.common.parameter import parameter
from mjx.models.vision.config import VisionConfig


class AttentionPooling(nnx.Module):
    """A learned query's attention to all tokens, and an MLP behind it."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        embed, std = config.hidden_size, config.init_std
        heads, _, head_dim = config.attention.resolve(embed).dims
        into = {"heads": heads, "head_dim": head_dim}
        self.probe = parameter(std * jax.random.normal(rngs.params(), (embed,)), "embed")
        self.query, self.key, self.value = (
            Linear({"embed": embed}, into, bias=True, std=std, rngs=rngs) for _ in range(3)
        )
        self.output = Linear(into, {"embed": embed}, bias=True, std=std, rngs=rngs)
        self.norm = Norm(config.norm, {"embed": embed})
        self.mlp = MLP(config.mlp, embed, std=std, output_std=std, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch sequence embed"], real: Bool[Array, "#batch sequence"]
    ) -> Float[Array, "batch embed"]:
        probe = self.probe[...].astype(x.dtype)[None, None]
        query = self.query(probe)[0, 0] * self.query.kernel.shape[-1] ** -0.5
        scores = jnp.einsum("hd,bshd->bhs", query, self.key(x), preferred_element_type=jnp.float32)
        shares = jax.nn.softmax(jnp.where(real[:, None], scores, -jnp.inf)).astype(x.dtype)
        found = self.output(jnp.einsum("bhs,bshd->bhd", shares, self.value(x))[:, None])
        hidden = activate(self.mlp.config, *self.mlp.project(self.norm(found), joined=False))
        return (found + self.mlp.down(hidden))[:, 0]
