"""The selective scan as a recurrence: one token after the other, nothing clever."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mjx.kernels.selective_scan.step import step


def selective_scan(
    u: Float[Array, "batch sequence channels"],
    delta: Float[Array, "batch sequence channels"],
    A: Float[Array, "channels state"],
    B: Float[Array, "batch sequence state"],
    C: Float[Array, "batch sequence state"],
    *,
    D: Float[Array, " channels"] | None,
    z: Float[Array, "batch sequence channels"] | None,
    initial_state: Float[Array, "batch channels state"],
    starts: Bool[Array, "batch sequence"] | None,
) -> tuple[Float[Array, "batch sequence channels"], Float[Array, "batch channels state"]]:
    """Outputs and the state after the last token. delta is final, and zero where a token has no effect."""

    def advance(state, now):
        u, delta, B, C, z, start = now
        if start is not None:
            state = jnp.where(start[:, None, None], 0, state)
        y, state = step(state, u, delta, A, B, C, D, z)
        return state, y

    over_time = jax.tree.map(lambda array: jnp.swapaxes(array, 0, 1), (u, delta, B, C, z, starts))
    state, y = jax.lax.scan(advance, initial_state, over_time)
    return jnp.swapaxes(y, 0, 1), state
