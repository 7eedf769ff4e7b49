"""Where documents begin in a row of packed tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def document_starts(
    segment_ids: Int[Array, "batch sequence"],
) -> tuple[Bool[Array, "batch sequence"], Bool[Array, "batch sequence"]]:
    """Which tokens are real (segment 0 is padding), and which of them begin a further document.

    A real token begins one where its id differs from that of the real token before it, so that padding
    is as if it were not there. The first real token of a row begins nothing: an initial state is its past.
    """
    real = segment_ids != 0
    positions = jnp.where(real, jnp.arange(segment_ids.shape[1]), -1)
    latest = jax.lax.cummax(positions, axis=1)
    before = jnp.pad(latest, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    id_before = jnp.take_along_axis(segment_ids, jnp.maximum(before, 0), axis=1)
    return real, real & (before >= 0) & (id_before != segment_ids)


def keep_real(real: Bool[Array, "batch sequence"] | None, array: Array) -> Array:
    """Zeros at padding, whatever stands there; also in the gradient. None: all are real."""
    if real is None:
        return array
    return jnp.where(real.reshape(real.shape + (1,) * (array.ndim - 2)), array, 0)
