"""State-space duality for every device: matrix products inside chunks, a recurrence between them.

Dao and Gu 2024 ("Transformers are SSMs"), section 6. The chunks are walked by one scan, and the backward
pass makes the inside of each chunk again from the state that entered it, so that memory beyond the inputs
and outputs is one state per chunk and one chunk's [heads, chunk, chunk] matrices.

Products are of the type of x and accumulate in float32; decays and states are float32 throughout.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mjx.kernels.capability import current_device

_CPU_CHUNK = 32
"""There the decays between each two tokens of a chunk cost more than the products that larger chunks save."""


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
    """As `reference.ssd`."""
    batch, length, heads, head_dim = x.shape
    groups, state_dim = B.shape[2:]
    grouped = (groups, heads // groups)
    if current_device()[0] == "cpu":
        chunk_size = min(chunk_size, _CPU_CHUNK)
    size = min(chunk_size, length)
    chunks = -(-length // size)

    def chunked(array: Array) -> Array:
        """Zeros behind the end have dt = 0, so that they leave the state as it is."""
        rest = array.shape[2:]
        missing = chunks * size - length
        if missing:
            array = jnp.pad(array, ((0, 0), (0, missing), *((0, 0) for _ in rest)))
        return jnp.moveaxis(array.reshape(batch, chunks, size, *rest), 1, 0)

    def split_heads(array: Array, axis: int) -> Array:
        return array.reshape(*array.shape[:axis], *grouped, *array.shape[axis + 1 :])

    inputs = (
        split_heads(chunked(x), 3),
        split_heads(chunked(dt), 3),
        chunked(B),
        chunked(C),
        None if z is None else split_heads(chunked(z), 3),
        None if starts is None else chunked(starts),
    )
    A = A.reshape(grouped)
    D = None if D is None else split_heads(D, 0)
    # The backward pass inside a chunk needs nothing of its forward pass but the inputs.
    advance = jax.checkpoint(partial(_chunk, A, D), prevent_cse=False)
    state, y = jax.lax.scan(advance, split_heads(initial_state, 1), inputs)
    y = jnp.moveaxis(y, 0, 1).reshape(batch, chunks * size, heads, head_dim)[:, :length]
    return y, state.reshape(batch, heads, head_dim, state_dim)


def _chunk(
    A: Float[Array, "groups of_group"],
    D: Float[Array, "groups of_group #head_dim"] | None,
    state: Float[Array, "batch groups of_group head_dim state"],
    chunk: tuple[Array, Array, Array, Array, Array | None, Array | None],
) -> tuple[Float[Array, "batch groups of_group head_dim state"], Array]:
    """The state that leaves the chunk, and its outputs [batch, token, groups, of_group, head_dim].

    Letters: batch, token i, earlier token j, group, head r of the group, head_dim p, state n.
    """
    x, dt, B, C, z, starts = chunk
    dtype, wide = x.dtype, state.dtype
    product = partial(jnp.einsum, preferred_element_type=wide, precision=jax.lax.Precision.HIGHEST)
    log_decay = jnp.cumsum(dt * A, axis=1)  # from the chunk's begin to each token, itself included
    total = log_decay[:, -1]
    by_head = jnp.moveaxis(log_decay, 1, -1)
    sees = jnp.tril(jnp.ones((x.shape[1],) * 2, bool))
    if starts is None:
        into, out_of, through = jnp.exp(log_decay), jnp.exp(total[:, None] - log_decay), jnp.exp(total)
    else:
        document = jnp.cumsum(starts.astype(jnp.int32), axis=1)
        sees = (sees & (document[:, :, None] == document[:, None, :]))[:, None, None]
        last = document[:, -1:]
        into = jnp.where((document == 0)[..., None, None], jnp.exp(log_decay), 0)
        out_of = jnp.where((document == last)[..., None, None], jnp.exp(total[:, None] - log_decay), 0)
        through = jnp.where((last == 0)[..., None], jnp.exp(total), 0)
    # The mask goes in before exp: above the diagonal the difference is positive and may overflow.
    decay = jnp.exp(jnp.where(sees, by_head[..., :, None] - by_head[..., None, :], -jnp.inf))
    scores = product("bign,bjgn->bgij", C, B)
    scaled = dt[..., None] * x.astype(wide)
    y = product("bgrij,bjgrp->bigrp", (scores[:, :, None] * decay).astype(dtype), scaled.astype(dtype))
    y = y + into[..., None] * product("bign,bgrpn->bigrp", C, state.astype(dtype))
    update = product("bjgrp,bjgn->bgrpn", (out_of[..., None] * scaled).astype(dtype), B)
    if D is not None:
        y = y + D * x.astype(wide)
    if z is not None:
        y = y * jax.nn.silu(z.astype(wide))
    return through[..., None, None] * state + update, y.astype(dtype)
