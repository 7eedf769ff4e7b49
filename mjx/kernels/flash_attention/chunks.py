"""How queries and keys are cut, and which pairs of chunks have anything to do with each other."""

from typing import NamedTuple

CHUNK = 256
"""Queries, and keys, of a chunk of the XLA path."""
ONE_CHUNK = 256 * 256
"""Up to so many scores a head, one chunk is as fast, and its scores are small."""

HALVED = 128
"""Queries from which on a causal chunk is worth two halves."""


class Chunks(NamedTuple):
    """The sizes of chunks and the visible pairs (query chunk, key chunk), by query chunk."""

    query_chunk: int
    key_chunk: int
    query_chunks: int
    key_chunks: int
    pairs: tuple[tuple[int, int], ...]


def chunk_sizes(queries: int, keys: int) -> tuple[int, int]:
    """Of a chunk of queries and of one of keys; of equal chunks, so that little is padding."""
    if queries * keys <= max(ONE_CHUNK, 8 * keys):  # few queries have few scores, however many the keys
        return queries, keys
    return tuple(-(-count // (-(-count // CHUNK))) for count in (queries, keys))  # type: ignore[return-value]


def worth_halving(tokens: int) -> bool:
    """Whether a CPU is quicker with so many causal queries, and as many keys, as two halves."""
    return tokens >= HALVED and chunk_sizes(tokens, tokens)[0] == tokens


def cut(
    queries: int,
    keys: int,
    *,
    causal: bool,
    window: int | None,
    distance: int | None,
    sizes: tuple[int, int],
) -> Chunks:
    """The pairs that causality and the window leave.

    `distance` is the position of the first query less that of the first key; None: known at run time
    only, so that all pairs stay.
    """
    query_chunk, key_chunk = sizes
    query_chunks, key_chunks = -(-queries // query_chunk), -(-keys // key_chunk)

    def visible(i: int, j: int) -> bool:
        if distance is None:
            return True
        first = distance + i * query_chunk - min((j + 1) * key_chunk, keys) + 1
        last = distance + min((i + 1) * query_chunk, queries) - 1 - j * key_chunk
        return (not causal or last >= 0) and (
            window is None or (first < window and (causal or last > -window))
        )

    pairs = tuple((i, j) for i in range(query_chunks) for j in range(key_chunks) if visible(i, j))
    return Chunks(query_chunk, key_chunk, query_chunks, key_chunks, pairs)
