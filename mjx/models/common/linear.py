"""A linear map whose features may have several named axes."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx.models.common.parameter import parameter
from mjx.sharding import mesh_shape


def project(
    x: Float[Array, "batch sequence ..."], kernel: Float[Array, "..."], contracted: int = 1
) -> Float[Array, "batch sequence ..."]:
    """Contract the last axes of `x` with the first of the kernel.

    On one device the tokens become one axis and the features become one: a kernel's gradient that sums
    over two token axes makes XLA's CPU backend write out a transposed copy of its input first, which
    cost a third of a training step. On a mesh the axes stay apart, for each has its own layout.
    """
    if any(size > 1 for size in mesh_shape().values()):
        return jnp.tensordot(x, kernel, axes=contracted)
    outputs = kernel.shape[contracted:]
    features = math.prod(kernel.shape[:contracted])
    y = x.reshape(-1, features) @ kernel.reshape(features, -1)
    return y.reshape(*x.shape[:-contracted], *outputs)


def scaled(x: Float[Array, "..."], factor: float) -> Float[Array, "..."]:
    """A number times `x`, which is not rounded to the dtype of `x` first."""
    return x if factor == 1 else (x.astype(jnp.float32) * factor).astype(x.dtype)


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
        y = project(x, self.kernel[...].astype(x.dtype), self.contracted)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)
