"""Which of the tokens that a recurrence is given are real, and whether it goes by steps."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Int

from mjx.models.common.context import Context


def real_tokens(context: Context, count: int) -> Int[Array, "batch sequence"] | None:
    """The documents of the tokens, 0 for padding: what stands behind a prompt leaves the state alone."""
    decoding, segment_ids = context.decoding, context.segment_ids
    if decoding is None:
        return segment_ids
    real = jnp.arange(count)[None] < decoding.lengths[:, None]
    return jnp.where(real, 1 if segment_ids is None else segment_ids, 0).astype(jnp.int32)


def stepped(context: Context, count: int) -> bool:
    """Whether these are one token of each row, behind those that the caches hold."""
    return count == 1 and context.decoding is not None and not context.decoding.prompt


def advanced(before: Mapping[str, Array], after: Mapping[str, Array]) -> dict[str, Array]:
    """A cache behind one token of each row: unchanged where that token is padding."""
    real = before["segment_ids"][:, 0] > 0
    return {
        name: jnp.where(real.reshape(-1, *[1] * (array.ndim - 1)), array, before[name].astype(array.dtype))
        for name, array in after.items()
    }
