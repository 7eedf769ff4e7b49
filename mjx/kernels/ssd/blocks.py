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
from jaxtyping import Array, Bool, Float, Int

from mjx.kernels.flash_attention.blocks import product


class Weights(NamedTuple):
    """What the tokens of a chunk weigh, for one head."""

    log_decay: Float[Array, " token"]
    """a."""
    dt: Float[Array, " token"]
    into: Float[Array, " token"]
    deposit: Float[Array, " token"]


class Gradients(NamedTuple):
    """Of what is one head's own."""

    x: Float[Array, "token head_dim"]
    weights: Weights


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


def earlier(size: int, document: Int[Array, " token"] | None) -> Bool[Array, "token earlier_token"]:
    """Which tokens of a chunk each token sees: itself and those before it, of the same document."""
    token = jnp.arange(size)
    mask = token[:, None] >= token[None, :]
    return mask if document is None else mask & (document[:, None] == document[None, :])


def decay(
    log_decay: Float[Array, " token"], sees: Bool[Array, "token earlier_token"]
) -> Float[Array, "token earlier_token"]:
    """From each earlier token to each token."""
    # The mask goes in before exp: above the diagonal the difference is positive and may overflow.
    return jnp.exp(jnp.where(sees, log_decay[:, None] - log_decay[None, :], -jnp.inf))


def output(
    scores: Float[Array, "token earlier_token"],
    sees: Bool[Array, "token earlier_token"],
    weights: Weights,
    x: Float[Array, "token head_dim"],
    read: Float[Array, "token head_dim"],
    D: Float[Array, " head_dim"] | None,
) -> Float[Array, "token head_dim"]:
    """y before the gate. `scores` are C Bᵀ, and `read` is C hᵀ, of the state that enters the chunk."""
    mixing = scores * decay(weights.log_decay, sees) * weights.dt[None, :]
    y = weights.into[:, None] * read + product(mixing.astype(x.dtype), x)
    return y if D is None else y + D[None, :] * x.astype(jnp.float32)


def score_gradient(
    sees: Bool[Array, "token earlier_token"],
    weights: Weights,
    x: Float[Array, "token head_dim"],
    d_y: Float[Array, "token head_dim"],
) -> Float[Array, "token earlier_token"]:
    """What one head adds to the gradient of C Bᵀ."""
    decays = decay(weights.log_decay, sees)
    return product(d_y, x, transpose_b=True) * decays * weights.dt[None, :]


def gradients(
    scores: Float[Array, "token earlier_token"],
    sees: Bool[Array, "token earlier_token"],
    weights: Weights,
    x: Float[Array, "token head_dim"],
    read: Float[Array, "token head_dim"],
    d_y: Float[Array, "token head_dim"],
    written: Float[Array, "token head_dim"],
    D: Float[Array, " head_dim"] | None,
) -> Gradients:
    """From the gradient of y before the gate. `read` is C hᵀ, and `written` B dhᵀ, of the gradient of the
    state behind the chunk.

    That of aₜ is the row sum less the column sum of one float32 matrix, so that what cancels between
    tokens when a's cumulative sum is differentiated cancels to float32's last bits. Written as
    y·dy - dt·ddt, which is the same on paper, the two would be rounded apart.
    """
    decayed = scores * decay(weights.log_decay, sees)
    mixing = decayed * weights.dt[None, :]
    d_x = product(mixing.astype(x.dtype), d_y, transpose_a=True) + weights.deposit[:, None] * written
    if D is not None:
        d_x += D[None, :] * d_y.astype(jnp.float32)
    of_dt = product(d_y, x, transpose_b=True) * decayed
    # A token's own weight has no decay in it.
    token = jnp.arange(scores.shape[0])
    exponent = jnp.where(token[:, None] > token[None, :], of_dt * weights.dt[None, :], 0.0)
    return Gradients(
        d_x,
        Weights(
            log_decay=jnp.sum(exponent, axis=1) - jnp.sum(exponent, axis=0),
            dt=jnp.sum(of_dt, axis=0),
            into=jnp.sum(read * d_y.astype(jnp.float32), axis=1),
            deposit=jnp.sum(written * x.astype(jnp.float32), axis=1),
        ),
    )


def gate(y: Float[Array, "token head_dim"], z: Float[Array, "token head_dim"]) -> Float[Array, "token head_dim"]:
    """y silu(z)."""
    z = z.astype(jnp.float32)
    return y.astype(jnp.float32) * z * jax.nn.sigmoid(z)


def gate_gradient(
    y: Float[Array, "token head_dim"],
    z: Float[Array, "token head_dim"],
    d_out: Float[Array, "token head_dim"],
) -> Float[Array, "token head_dim"]:
    """Of z, from y before the gate."""
    z = z.astype(jnp.float32)
    open_ = jax.nn.sigmoid(z)
    return d_out.astype(jnp.float32) * y * open_ * (1 + z * (1 - open_))
