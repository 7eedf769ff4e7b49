"""A linear map whose features may have several named axes."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx.models.common.parameter import parameter


class Linear(nnx.Module):
    """`y = x · kernel + bias`, contracting all input axes; parameters are cast to the dtype of `x`.

    The kernel has the input axes first: an attention output is `(heads, head_dim, embed)`. Axis names
    are those of the rule table, and say how the parameter is laid out over the mesh.
    """

    def __init__(
        self,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        *,
        bias: bool = False,
        std: float,
        rngs: nnx.Rngs,
    ):
        shape = (*inputs.values(), *outputs.values())
        kernel = std * jax.random.normal(rngs.params(), shape, jnp.float32)
        self.kernel = parameter(kernel, *inputs, *outputs)
        zeros = jnp.zeros(tuple(outputs.values()), jnp.float32)
        self.bias = parameter(zeros, *outputs) if bias else None
        self.contracted = len(inputs)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        y = jnp.tensordot(x, self.kernel[...].astype(x.dtype), axes=self.contracted)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)
