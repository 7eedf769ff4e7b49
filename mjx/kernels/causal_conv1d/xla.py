"""A causal convolution as a sum of shifted copies, which XLA turns into one loop over the tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx.kernels.documents import document_starts, keep_real


def causal_conv1d(
    x: Float[Array, "batch sequence channels"],
    weight: Float[Array, "channels width"],
    bias: Float[Array, " channels"] | None,
    *,
    silu: bool,
    initial_state: Float[Array, "batch past channels"],
    segment_ids: Int[Array, "batch sequence"] | None,
) -> tuple[Float[Array, "batch sequence channels"], Float[Array, "batch past channels"]]:
    """Outputs and the last width - 1 inputs. The initial state has the type of x."""
    length, width = x.shape[1], weight.shape[1]
    past = width - 1
    if segment_ids is None:
        extended = jnp.concatenate([initial_state, x], axis=1)
        return _taps(extended, None, weight, bias, silu, x.dtype), extended[:, length:]

    real, starts = document_starts(segment_ids)
    document = jnp.pad(jnp.cumsum(starts.astype(jnp.int32), axis=1), ((0, 0), (past, 0)))
    positions = jnp.arange(length)
    first = jnp.min(jnp.where(real, positions, length), axis=1)
    # Behind the last real token stands the next input; in a row of padding, that is behind the initial state.
    end = jnp.max(jnp.where(real, positions + 1, first[:, None]), axis=1)
    extended = jnp.pad(keep_real(real, x), ((0, 0), (past, 0), (0, 0)))
    if past:  # the initial state is the past of the first real token, wherever that stands
        place = jax.vmap(lambda row, state, begin: jax.lax.dynamic_update_slice_in_dim(row, state, begin, 0))
        extended = place(extended, initial_state, first)
    y = keep_real(real, _taps(extended, document, weight, bias, silu, x.dtype))
    take = jax.vmap(lambda row, begin: jax.lax.dynamic_slice_in_dim(row, begin, past, 0))
    of_last = take(document, end) == document[:, -1:]
    return y, jnp.where(of_last[..., None], take(extended, end), 0)


def _taps(
    extended: Float[Array, "batch past_and_sequence channels"],
    document: Int[Array, "batch past_and_sequence"] | None,
    weight: Float[Array, "channels width"],
    bias: Float[Array, " channels"] | None,
    silu: bool,
    dtype,
) -> Float[Array, "batch sequence channels"]:
    width = weight.shape[1]
    length = extended.shape[1] - (width - 1)
    wide = jnp.promote_types(dtype, jnp.float32)
    weight = weight.astype(wide)
    y = jnp.zeros((), wide) if bias is None else bias.astype(wide)
    for tap in range(width):
        inputs = extended[:, tap : tap + length]
        if document is not None:
            same = document[:, tap : tap + length] == document[:, width - 1 :]
            inputs = jnp.where(same[..., None], inputs, 0)
        y = y + weight[:, tap] * inputs.astype(wide)
    return (jax.nn.silu(y) if silu else y).astype(dtype)
