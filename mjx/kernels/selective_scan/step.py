"""One token of the recurrence: what decoding does, and what the sequential reference repeats."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def step(
    state: Float[Array, "batch channels state"],
    u: Float[Array, "batch channels"],
    delta: Float[Array, "batch channels"],
    A: Float[Array, "channels state"],
    B: Float[Array, "batch state"],
    C: Float[Array, "batch state"],
    D: Float[Array, " channels"] | None,
    z: Float[Array, "batch channels"] | None,
) -> tuple[Float[Array, "batch channels"], Float[Array, "batch channels state"]]:
    """h ← exp(delta A) h + delta u B, y = h · C + D u, gated by silu(z); all in the state's precision."""
    wide = u.astype(state.dtype)
    drive = (delta * wide)[..., None] * B.astype(state.dtype)[:, None, :]
    state = jnp.exp(delta[..., None] * A) * state + drive
    y = jnp.sum(state * C.astype(state.dtype)[:, None, :], axis=-1)
    if D is not None:
        y = y + D * wide
    if z is not None:
        y = y * jax.nn.silu(z.astype(state.dtype))
    return y.astype(u.dtype), state
