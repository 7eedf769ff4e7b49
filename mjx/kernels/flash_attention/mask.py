"""Which keys a query may see."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from mjx.kernels.flash_attention.options import AttentionOptions


class Places(NamedTuple):
    """Where queries and keys stand; None for what does not matter."""

    query_positions: Int[Array, "#batch query"] | None
    key_positions: Int[Array, "#batch key"] | None
    query_segments: Int[Array, "batch query"] | None
    key_segments: Int[Array, "batch key"] | None
    query_sees: Bool[Array, "batch query"] | None
    """False: padding."""
    key_seen: Bool[Array, "batch key"] | None
    """False: padding, or out of the sight of all of the row's queries; such keys may be NaN."""


def places(
    queries: int,
    keys: int,
    options: AttentionOptions,
) -> Places:
    """The places of queries and keys that follow one another from the offsets on.

    Of keys that are out of sight by offsets known now (`visible_keys`), there should be none.
    """
    causal, window = options.causal, options.window
    query_segment_ids, key_segment_ids = options.query_segment_ids, options.key_segment_ids
    of_queries = of_keys = sees = seen = None
    if query_segment_ids is not None and key_segment_ids is not None:
        sees, seen = query_segment_ids > 0, key_segment_ids > 0
    if causal or window is not None:
        of_queries, of_keys = (
            jnp.asarray(offset, jnp.int32).reshape(-1, 1) + jnp.arange(count, dtype=jnp.int32)
            for offset, count in ((options.query_offset, queries), (options.key_offset, keys))
        )
        if options.distance is None:
            ahead = 0 if causal else (window or 1) - 1
            near = of_keys <= of_queries[:, -1:] + ahead
            if window is not None:
                near &= of_keys > of_queries[:, :1] - window
            seen = near if seen is None else seen & near
    return Places(of_queries, of_keys, query_segment_ids, key_segment_ids, sees, seen)


def attention_mask(
    where: Places, *, causal: bool, window: int | None
) -> Bool[Array, "#batch query key"] | None:
    """True where the query may see the key; None where all see all.

    A window of n is the token itself and the n - 1 before it, and unless causal the n - 1 behind it.
    Tokens of segment 0 (padding) see nothing and are not seen.
    """
    mask = None
    if where.query_positions is not None and where.key_positions is not None:
        distance = where.query_positions[:, :, None] - where.key_positions[:, None, :]
        mask = distance >= 0 if causal else None
        if window is not None:
            near = distance < window
            near = near if causal else near & (distance > -window)
            mask = near if mask is None else mask & near
    if where.query_segments is not None and where.key_segments is not None:
        of_queries, of_keys = where.query_segments[:, :, None], where.key_segments[:, None, :]
        same = (of_queries == of_keys) & (of_queries > 0)
        mask = same if mask is None else mask & same
    return mask


def visible_keys(
    queries: int, keys: int, *, causal: bool, window: int | None, distance: int
) -> tuple[int, int]:
    """(first, past the last) of the keys that some query may see by its position."""
    first, last = distance, distance + queries - 1
    begin, end = 0, keys
    if causal:
        end = min(end, last + 1)
    elif window is not None:
        end = min(end, last + window)
    if window is not None:
        begin = max(begin, first - window + 1)
    return begin, max(begin, end)
