"""Muon: momentum whose matrices are replaced by their nearest orthogonal ones (Jordan et al. 2024).

Of our own, although `optax.contrib.muon` has the same update: optax joins all stack axes of an array to one,
[layers, experts, …] to [layers · experts, …], and for that gathers the experts of all devices. Here they stay
axes of a batched product.
"""

import dataclasses
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.training.parameter_kinds import MatrixDimensions, match_axes, matrix_dimensions, parameter_kind

NEWTON_SCHULZ_COEFFICIENTS = {
    # One polynomial for every step, chosen for the steepest slope at zero (Jordan et al. 2024).
    "simple": ((3.4445, -4.7750, 2.0315),),
    # One polynomial per step, fitted together; the singular values end nearer to 1. Megatron's default.
    "quintic": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MuonConfig:
    """Muon for the hidden matrices; every other parameter is updated by AdamW with the same learning rate."""

    momentum: float = 0.95
    """Decay of the running mean of gradients."""
    nesterov: bool = True
    """Orthogonalise the mean that the next step would see, not the present one."""
    newton_schulz_steps: int = 5
    """Iterations; each costs two products of the smaller side squared and one of the whole matrix."""
    coefficients: Literal["quintic", "simple"] = "quintic"
    """The polynomials of the iteration."""
    scale: Literal["spectral", "shape", "unit-rms"] = "spectral"
    """Factor by the matrix's sides: `spectral` sqrt(max(in, out)), so that every update has the same root
    mean square; `shape` sqrt(max(1, out / in)); `unit-rms` sqrt(out / in)."""
    scale_factor: float = 0.2
    """One more factor. 0.2 with `spectral` gives AdamW's root mean square (Liu et al. 2025), so that
    AdamW's learning rate and weight decay carry over. Megatron's default is 1."""

    def __post_init__(self):
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum = {self.momentum} must be at least 0 and below 1")
        if self.newton_schulz_steps < 1:
            raise InputError(f"newton_schulz_steps = {self.newton_schulz_steps} must be 1 or more")
        check_scale("scale_factor", self.scale_factor)


class MuonState(NamedTuple):
    momentum: PyTree


def scale_by_muon(
    config: MuonConfig, axes: PyTree, *, moment_dtype: jnp.dtype | None = None
) -> optax.GradientTransformation:
    """Replace the gradients of hidden matrices by Muon's direction; pass all others on untouched.

    Every layer's and every expert's matrix is orthogonalised for itself.
    """

    def hidden(params):
        return [parameter_kind(names) == "hidden" for names in match_axes(params, axes)]

    def init(params):
        leaves, treedef = jax.tree.flatten(params)
        momentum = [
            jnp.zeros_like(p, dtype=moment_dtype) if own else optax.MaskedNode()
            for p, own in zip(leaves, hidden(params), strict=True)
        ]
        return MuonState(jax.tree.unflatten(treedef, momentum))

    def update(grads, state, params=None):
        leaves, treedef = jax.tree.flatten(grads)
        names = match_axes(grads, axes)
        momenta = treedef.flatten_up_to(state.momentum)
        directions, new_momenta = [], []
        for grad, momentum, leaf_axes in zip(leaves, momenta, names, strict=True):
            if parameter_kind(leaf_axes) == "hidden":
                beta = config.momentum
                dtype, momentum = momentum.dtype, beta * momentum + (1 - beta) * grad
                mean = beta * momentum + (1 - beta) * grad if config.nesterov else momentum
                grad = orthogonalise(mean, matrix_dimensions(leaf_axes), config)
                momentum = momentum.astype(dtype)
            directions.append(grad)
            new_momenta.append(momentum)
        return jax.tree.unflatten(treedef, directions), MuonState(jax.tree.unflatten(treedef, new_momenta))

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def orthogonalise(
    array: Float[Array, "..."], dimensions: MatrixDimensions, config: MuonConfig
) -> Float[Array, "..."]:
    """Newton-Schulz on each matrix of the stack, scaled: U V^T of its singular value decomposition, about."""
    order = (*dimensions.stack, *dimensions.inputs, *dimensions.outputs)
    sides = [math.prod(array.shape[i] for i in group) for group in (dimensions.inputs, dimensions.outputs)]
    stack = tuple(array.shape[i] for i in dimensions.stack)
    x = array.transpose(order).reshape(*stack, *sides)
    wide = sides[0] <= sides[1]
    x = x if wide else x.mT  # the products are of the smaller side
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7)
    polynomials = NEWTON_SCHULZ_COEFFICIENTS[config.coefficients]
    for step in range(config.newton_schulz_steps):
        a, b, c = polynomials[step % len(polynomials)]
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    x = (x if wide else x.mT) * (config.scale_factor * _scale(config.scale, *sides))
    inverse = sorted(range(array.ndim), key=order.__getitem__)
    return x.reshape(tuple(array.shape[i] for i in order)).transpose(inverse)


def _scale(scale: str, inputs: int, outputs: int) -> float:
    if scale == "spectral":
        return math.sqrt(max(inputs, outputs))
    if scale == "shape":
        return math.sqrt(max(1.0, outputs / inputs))
    return math.sqrt(outputs / inputs)
