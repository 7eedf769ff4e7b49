"""State-space duality as a recurrence: one token after the other, nothing clever."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mjx.kernels.ssd.step import step


def ssd(
    x: Float[Array, "batch sequence heads head_dim"],
    dt: Float[Array, "batch sequence heads"],
    A: Float[Array, " heads"],
    B: Float[Array, "batch sequence groups state"],
    C: Float[Array, "batch sequence groups state"],
    *,
    D: Float[Array, "heads #head_dim"] | None,
    z: Float[Array, "batch sequence heads head_dim"] | None,
    initial_state: Float[Array, "batch heads head_dim state"],
    starts: Bool[Array, "batch sequence"] | None,
    chunk_size: int,
) -> tuple[Float[Array, "batch sequence heads head_dim"], Float[Array, "batch heads head_dim state"]]:
    """Outputs and the state after the last token. dt is final, and zero where a token has no effect."""
    del chunk_size  # it does not change the result

    def advance(state, now):
        x, dt, B, C, z, start = now
        if start is not None:
            state = jnp.where(start[:, None, None, None], 0, state)
        y, state = step(state, x, dt, A, B, C, D, z)
        return state, y

    over_time = jax.tree.map(lambda array: jnp.swapaxes(array, 0, 1), (x, dt, B, C, z, starts))
    state, y = jax.lax.scan(advance, initial_state, over_time)
    return jnp.swapaxes(y, 0, 1), state
