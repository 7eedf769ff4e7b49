"""The mathematics of one chunk of state-space duality, on values: what every GPU kernel is made of.

Dao and Gu 2024, section 6. Letters: token i, earlier token j, feature p, state n. A state is [p, n]. With
aᵢ the sum of dt A from the chunk's begin to token i, itself included, a chunk of one head is

    yᵢ = Σⱼ Wᵢⱼ xⱼ + intoᵢ h Cᵢ + D xᵢ,    Wᵢⱼ = Cᵢ·Bⱼ exp(aᵢ - aⱼ) dtⱼ for j ≤ i,
    h  ← through h + Σⱼ depositⱼ xⱼ Bⱼᵀ,

where intoᵢ = exp(aᵢ), depositⱼ = exp(a_last - aⱼ) dtⱼ and through = exp(a_last), each zero where another
document begins in between. Decays and sums are float32; products are of the type of x.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx.kernels.matrix_product import product


class Weights(NamedTuple):
    """What the tokens of a chunk weigh, for one head."""

    log_decay: Float[Array, " token"]
    """a."""
    dt: Float[Array, " token"]
    into: Float[Array, " token"]
    deposit: Float[Array, " token"]


def advance(
    state: Float[Array, "head_dim state"],
    through: Float[Array, ""],
    weight: Float[Array, " token"],
    x: Float[Array, "token head_dim"],
    B: Float[Array, "token state"],
) -> Float[Array, "head_dim state"]:
    """The state behind a chunk. Its gradient goes the other way by the same formula, with the gradient of
    y for x, C for B and `into` for the weight."""
    return state * through + product(weighted(x, weight), B, transpose_a=True)


def weighted(
    x: Float[Array, "token features"], weight: Float[Array, " token"]
) -> Float[Array, "token features"]:
    """In the type of x."""
    return (x.astype(jnp.float32) * weight[:, None]).astype(x.dtype)


def visible(
    scores: Float[Array, "token earlier_token"],
    document: Int[Array, " token"] | None,
    *,
    transposed: bool = False,
) -> Float[Array, "token earlier_token"]:
    """Zeros where a token does not see the other: behind it, or of another document.

    Once for all heads: in a loop over heads a mask would stay in registers, one for each element.
    """
    token = jnp.arange(scores.shape[0])
    mask = token[:, None] <= token[None, :] if transposed else token[:, None] >= token[None, :]
    if document is not None:
        mask &= document[:, None] == document[None, :]
    return jnp.where(mask, scores, 0.0)


def decay(
    log_decay: Float[Array, " token"], *, transposed: bool = False
) -> Float[Array, "token earlier_token"]:
    """Between tokens; of those that do not see each other anything finite."""
    exponent = log_decay[:, None] - log_decay[None, :]
    return jnp.exp(jnp.minimum(-exponent if transposed else exponent, _ALMOST_INFINITE))


_ALMOST_INFINITE = 60.0
"""Decays are below one, but above the diagonal, where they are multiplied by zero, they could overflow."""


def output(
    scores: Float[Array, "token earlier_token"],
    weights: Weights,
    x: Float[Array, "token head_dim"],
    read: Float[Array, "token head_dim"],
    D: Float[Array, " head_dim"] | None,
) -> Float[Array, "token head_dim"]:
    """y before the gate. `scores` are the visible C Bᵀ; `read` is C hᵀ, of the state before the chunk."""
    mixing = scores * decay(weights.log_decay) * weights.dt[None, :]
    y = weights.into[:, None] * read + product(mixing.astype(x.dtype), x)
    return y if D is None else y + D[None, :] * x.astype(jnp.float32)


def score_gradient(
    weights: Weights, x: Float[Array, "token head_dim"], d_y: Float[Array, "token head_dim"]
) -> Float[Array, "token earlier_token"]:
    """What one head adds to the gradient of C Bᵀ, of which the visible part is wanted."""
    return product(d_y, x, transpose_b=True) * (decay(weights.log_decay) * weights.dt[None, :])


def x_gradient(
    decayed: Float[Array, "earlier_token token"],
    weights: Weights,
    d_y: Float[Array, "token head_dim"],
    written: Float[Array, "earlier_token head_dim"],
    D: Float[Array, " head_dim"] | None,
) -> Float[Array, "earlier_token head_dim"]:
    """`decayed` is B Cᵀ, visible and decayed; `written` is B dhᵀ, of the gradient of the state behind the
    chunk."""
    mixing = decayed * weights.dt[:, None]
    d_x = weights.deposit[:, None] * written + product(mixing.astype(d_y.dtype), d_y)
    return d_x if D is None else d_x + D[None, :] * d_y.astype(jnp.float32)


def mixing_gradients(
    decayed: Float[Array, "earlier_token token"],
    weights: Weights,
    x: Float[Array, "earlier_token head_dim"],
    d_y: Float[Array, "token head_dim"],
) -> tuple[Float[Array, " token"], Float[Array, " token"]]:
    """Of a and of dt, as far as they are in W.

    That of aₜ is a sum over earlier less one over later tokens of one float32 matrix, so that what cancels
    between tokens when a's cumulative sum is differentiated cancels to float32's last bits. Written as
    y·dy - dt·ddt, which is the same on paper, the two would be rounded apart.
    """
    of_dt = product(x, d_y, transpose_b=True) * decayed
    # A token's own weight has no decay in it.
    token = jnp.arange(decayed.shape[0])
    exponent = jnp.where(token[:, None] < token[None, :], of_dt * weights.dt[:, None], 0.0)
    return jnp.sum(exponent, axis=0) - jnp.sum(exponent, axis=1), jnp.sum(of_dt, axis=1)


def overlap(a: Float[Array, "token features"], b: Float[Array, "token features"]) -> Float[Array, " token"]:
    """Of each token, a·b in float32."""
    return jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32), axis=1)


def gate(y: Float[Array, "..."], z: Float[Array, "..."]) -> Float[Array, "..."]:
    """y silu(z), in float32."""
    z = z.astype(jnp.float32)
    return y.astype(jnp.float32) * z * jax.nn.sigmoid(z)
