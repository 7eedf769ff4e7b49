"""One token of the recurrence: what decoding does, and what the sequential reference repeats."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def step(
    state: Float[Array, "batch heads head_dim state"],
    x: Float[Array, "batch heads head_dim"],
    dt: Float[Array, "batch heads"],
    A: Float[Array, " heads"],
    B: Float[Array, "batch groups state"],
    C: Float[Array, "batch groups state"],
    D: Float[Array, "heads #head_dim"] | None,
    z: Float[Array, "batch heads head_dim"] | None,
) -> tuple[Float[Array, "batch heads head_dim"], Float[Array, "batch heads head_dim state"]]:
    """h ← exp(dt A) h + dt x Bᵀ, y = h C + D x, gated by silu(z); all in the state's precision."""
    heads = x.shape[1]
    B, C = (jnp.repeat(array.astype(state.dtype), heads // array.shape[1], axis=1) for array in (B, C))
    wide = x.astype(state.dtype)
    state = jnp.exp(dt * A)[..., None, None] * state + (dt[..., None] * wide)[..., None] * B[:, :, None, :]
    y = jnp.sum(state * C[:, :, None, :], axis=-1)
    if D is not None:
        y = y + D * wide
    if z is not None:
        y = y * jax.nn.silu(z.astype(state.dtype))
    return y.astype(x.dtype), state
