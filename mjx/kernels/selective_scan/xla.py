"""The selective scan for every device: an associative scan inside chunks (on a CPU a loop), a loop over them.

The states of all tokens, [sequence, channels, state], are what makes this scan large. Here they exist for
one chunk at a time: the backward pass makes them again from the state that entered the chunk, so that
memory beyond the inputs and outputs is one state per chunk and a few of one chunk's states of all tokens.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mjx.kernels.selective_scan.recurrence import linear_recurrence

CHUNK_SIZE = 32


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
    """As `reference.selective_scan`."""
    batch, length, channels = u.shape
    size = min(CHUNK_SIZE, length)
    chunks = -(-length // size)

    def chunked(array: Array) -> Array:
        """[chunk, time, batch, …]. Zeros behind the end have delta = 0, so that the state passes them."""
        array = jnp.swapaxes(array, 0, 1)
        missing = chunks * size - length
        if missing:
            array = jnp.pad(array, ((0, missing), *((0, 0) for _ in array.shape[1:])))
        return array.reshape(chunks, size, *array.shape[1:])

    inputs = jax.tree.map(chunked, (u, delta, B, C, z, starts))
    # Channels are many and states few, so that channels come last inside: the axis of vector instructions.
    advance = jax.checkpoint(partial(_chunk, A.T, D), prevent_cse=False)
    state, y = jax.lax.scan(advance, jnp.swapaxes(initial_state, 1, 2), inputs)
    y = y.reshape(chunks * size, batch, channels)[:length]
    return jnp.swapaxes(y, 0, 1), jnp.swapaxes(state, 1, 2)


def _chunk(
    A: Float[Array, "state channels"],
    D: Float[Array, " channels"] | None,
    state: Float[Array, "batch state channels"],
    chunk: tuple[Array, Array, Array, Array, Array | None, Array | None],
) -> tuple[Float[Array, "batch state channels"], Float[Array, "time batch channels"]]:
    """The state that leaves the chunk, and its outputs."""
    u, delta, B, C, z, starts = chunk
    wide = u.astype(state.dtype)
    # As einsums, of which the gradients are matrix products: XLA's own sums over one axis of many are slow.
    product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    decay = jnp.exp(product("tbd,nd->tbnd", delta, A))
    if starts is not None:
        decay = jnp.where(starts[..., None, None], 0, decay)
    drive = product("tbd,tbn->tbnd", delta * wide, B.astype(state.dtype))
    states = linear_recurrence(decay, drive, state)
    y = product("tbnd,tbn->tbd", states, C.astype(state.dtype))
    if D is not None:
        y = y + D * wide
    if z is not None:
        y = y * jax.nn.silu(z.astype(state.dtype))
    return states[-1], y.astype(u.dtype)
