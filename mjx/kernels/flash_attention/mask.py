"""Which keys a query may see."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def attention_mask(
    query_length: int,
    key_length: int,
    *,
    causal: bool,
    window: int | None,
    segment_ids: Int[Array, "batch sequence"] | None,
    query_offset: int | Int[Array, " batch"],
) -> Bool[Array, "#batch query_length key_length"] | None:
    """True where the query at `query_offset + i` sees key j; None where all see all.

    Segments bound both sides, and the tokens of segment 0 (padding) see nothing.
    """
    mask = None
    if causal or window is not None:
        queries = jnp.asarray(query_offset).reshape(-1, 1) + jnp.arange(query_length)
        distance = queries[:, :, None] - jnp.arange(key_length)
        mask = distance >= 0 if causal else None
        if window is not None:
            near = jnp.abs(distance) < window
            mask = near if mask is None else mask & near
    if segment_ids is not None:
        same = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (segment_ids[:, :, None] > 0)
        mask = same if mask is None else mask & same
    return mask
