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
    """Of one head's chunk. B and C are shared by heads, and theirs are to be added up."""

    x: Float[Array, "token head_dim"]
    B: Float[Array, "token state"]
    C: Float[Array, "token state"]
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
    weighted = (x.astype(jnp.float32) * weight[:, None]).astype(x.dtype)
    return state * through + product(weighted, B, transpose_a=True)


def before(
    size: int, document: Int[Array, " token"] | None, *, itself: bool
) -> Bool[Array, "token earlier_token"]:
    """Which tokens of the same document come before a token of a chunk."""
    token = jnp.arange(size)
    mask = token[:, None] >= token[None, :] if itself else token[:, None] > token[None, :]
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
    C: Float[Array, "token state"],
    state: Float[Array, "head_dim state"],
    D: Float[Array, " head_dim"] | None,
) -> Float[Array, "token head_dim"]:
    """y before the gate, from the state that enters the chunk; `scores` are C Bᵀ."""
    mixing = scores * decay(weights.log_decay, sees) * weights.dt[None, :]
    y = weights.into[:, None] * product(C, state, transpose_b=True)
    y += product(mixing.astype(x.dtype), x)
    return y if D is None else y + D[None, :] * x.astype(jnp.float32)


def gradients(
    scores: Float[Array, "token earlier_token"],
    sees: Bool[Array, "token earlier_token"],
    weights: Weights,
    x: Float[Array, "token head_dim"],
    B: Float[Array, "token state"],
    C: Float[Array, "token state"],
    state: Float[Array, "head_dim state"],
    d_y: Float[Array, "token head_dim"],
    d_state: Float[Array, "head_dim state"],
    D: Float[Array, " head_dim"] | None,
) -> Gradients:
    """From the gradients of y before the gate, and of the state behind the chunk.

    That of aₜ is the row sum less the column sum of one float32 matrix, so that what cancels between
    tokens when a's cumulative sum is differentiated cancels to float32's last bits. Written as
    y·dy - dt·ddt, which is the same on paper, the two would be rounded apart.
    """
    dtype = x.dtype
    decays = decay(weights.log_decay, sees)
    d_mixing = product(d_y, x, transpose_b=True)
    d_scores = d_mixing * decays * weights.dt[None, :]
    d_dt = jnp.sum(d_mixing * decays * scores, axis=0)
    # A token's own weight has no decay in it.
    token = jnp.arange(scores.shape[0])
    exponent = jnp.where(token[:, None] > token[None, :], d_scores * scores, 0.0)
    d_log_decay = jnp.sum(exponent, axis=1) - jnp.sum(exponent, axis=0)
    mixing = (scores * decays * weights.dt[None, :]).astype(dtype)
    rounded = d_scores.astype(dtype)

    d_x = product(mixing, d_y, transpose_a=True)
    left = product(B, d_state, transpose_b=True)
    d_x += weights.deposit[:, None] * left
    d_deposit = jnp.sum(left * x.astype(jnp.float32), axis=1)
    if D is not None:
        d_x += D[None, :] * d_y.astype(jnp.float32)

    seen = product(d_y, state)
    d_into = jnp.sum(seen * C.astype(jnp.float32), axis=1)
    d_C = weights.into[:, None] * seen + product(rounded, B)
    weighted = (x.astype(jnp.float32) * weights.deposit[:, None]).astype(dtype)
    d_B = product(weighted, d_state) + product(rounded, C, transpose_a=True)
    return Gradients(d_x, d_B, d_C, Weights(d_log_decay, d_dt, d_into, d_deposit))


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
