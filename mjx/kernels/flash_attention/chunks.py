"""How queries and keys are cut, and which pairs of chunks have anything to do with each other."""

from typing import NamedTuple

from mjx.kernels.capability import current_device


class ChunkLimits(NamedTuple):
    """How large chunks are."""

    chunk: int
    """Queries, and keys, of a chunk of the XLA path."""
    one_chunk: int
    """Up to so many scores a head, one chunk is as fast, and its scores are small."""


ON_CPU = ChunkLimits(384, 512 * 512)
"""Faster than `ELSEWHERE`'s: `benchmarks/attention.py --implementations xla:256,xla`."""
ELSEWHERE = ChunkLimits(256, 256 * 256)

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
    limits = ON_CPU if current_device()[0] == "cpu" else ELSEWHERE
    # Few queries have few scores, however many the keys.
    if queries * keys <= max(limits.one_chunk, 8 * keys):
        return queries, keys

    def equal(count: int) -> int:
        return -(-count // (-(-count // limits.chunk)))

    return equal(queries), equal(keys)


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
