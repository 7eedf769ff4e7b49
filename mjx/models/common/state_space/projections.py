"""The maps into a state-space sub-layer, as one product, and the convolutions behind them."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from mjx.kernels.causal_conv1d import causal_conv1d, causal_conv1d_step
from mjx.models.common.linear import Linear, project
from mjx.models.common.mlp import ACTIVATIONS, Activation
from mjx.models.common.parameter import parameter
from mjx.models.common.split import Split
from mjx.models.common.state_space.initial import taps
from mjx.models.common.state_space.sequence import with_past


def joined(x: Float[Array, "batch sequence ..."], linears: Sequence[Linear], shares: int) -> list[Array]:
    """What each makes of `x`, as one product: one GEMM, and one collective for the gradient of `x`.

    Each kernel is cut into as many shares as the tensor degree, and its share lies beside the others': a
    device's part of the product is then its part of each.
    """
    shapes = [linear.kernel[...].shape[linear.contracted :] for linear in linears]
    widths = [math.prod(shape) // shares for shape in shapes]

    def join(arrays: list[Any], leading: tuple[int, ...]) -> Array:
        axes = (shares, -1) if shares > 1 else (-1,)
        return jnp.concatenate([a.reshape(*leading, *axes) for a in arrays], axis=-1).astype(x.dtype)

    contracted = linears[0].contracted
    inputs = linears[0].kernel[...].shape[:contracted]
    y = project(x, join([linear.kernel[...] for linear in linears], inputs), contracted)
    if linears[0].bias is not None:
        y = y + join([linear.bias[...] for linear in linears if linear.bias is not None], ())
    parts: Any = _parted(y, tuple(itertools.accumulate(widths)))
    return [
        part.reshape(*x.shape[: x.ndim - contracted], *shape)
        for part, shape in zip(parts, shapes, strict=True)
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _parted(y: Float[Array, "... features"], bounds: tuple[int, ...]) -> tuple[Array, ...]:
    """Parts that lie one after the other. Their gradients are joined again; derived, it would be a sum of
    padded arrays, which XLA's CPU backend computes one number at a time."""
    return tuple(y[..., low:high] for low, high in zip((0, *bounds), bounds, strict=False))


_parted.defvjp(
    lambda y, bounds: (_parted(y, bounds), None),
    lambda bounds, _, gradients: (jnp.concatenate(gradients, axis=-1),),
)


class Convolution(nnx.Module):
    """Of each channel by itself, over the last tokens: `kernel` is `(channels …, conv)`."""

    def __init__(self, features: Mapping[str, int], width: int, *, bias: bool, rngs: nnx.Rngs):
        shape = tuple(features.values())
        self.kernel = parameter(taps(rngs.params(), (*shape, width), width), *features, "conv", float32=True)
        self.bias = parameter(taps(rngs.params(), shape, width), *features, float32=True) if bias else None


def convolved(
    x: Float[Array, "batch sequence ..."],
    kernel: Float[Array, "... conv"],
    bias: Float[Array, "..."] | None,
    activation: Activation,
    *,
    past: Float[Array, "batch past ..."] | None,
    segment_ids: Int[Array, "batch sequence"] | None,
    single: bool,
    split: Split | None,
) -> tuple[Float[Array, "batch sequence ..."], Float[Array, "batch past ..."]]:
    """The activated convolution, and the inputs that the next token reaches; `single`: of one token."""
    if split is None:
        return _convolved(activation, single, x, kernel, bias, past, segment_ids)
    before = kernel.shape[-1] - 1
    x = with_past(split, x, before)
    segment_ids = None if segment_ids is None else with_past(split, segment_ids, before)
    y, after = _convolved(activation, single, x, kernel, bias, past, segment_ids)
    return y[:, before:], after


@functools.partial(jax.checkpoint, static_argnums=(0, 1), prevent_cse=False)
def _convolved(
    activation: Activation,
    single: bool,
    x: Float[Array, "batch sequence ..."],
    kernel: Float[Array, "... conv"],
    bias: Float[Array, "..."] | None,
    past: Float[Array, "batch past ..."] | None,
    segment_ids: Int[Array, "batch sequence"] | None,
) -> tuple[Float[Array, "batch sequence ..."], Float[Array, "batch past ..."]]:
    """Made again backwards: sums before the activation are in float32, twice as large as what is made of
    them."""
    channels = x.shape[2:]
    flat = (*x.shape[:2], -1)
    fused = "silu" if activation == "silu" else None
    weights = (kernel.reshape(-1, kernel.shape[-1]), None if bias is None else bias.reshape(-1))
    before = None if past is None else past.reshape(*past.shape[:2], -1)
    if single and before is not None:
        y, after = causal_conv1d_step(before, x.reshape(flat)[:, 0], *weights, activation=fused)
        y = y[:, None]
    else:
        y, after = causal_conv1d(
            x.reshape(flat),
            *weights,
            activation=fused,
            initial_state=before,
            segment_ids=segment_ids,
            return_final_state=True,
        )
    y = y if fused else ACTIVATIONS[activation](y)
    return y.reshape(x.shape), after.reshape(*after.shape[:2], *channels)
