"""A learned bias on scores by the distance of key and query, in buckets (Raffel et al. 2020, section 2.1).

A pair of chunks has as many distances as queries and keys together: the bias is made for these, and laid
out along the diagonals of the scores; backward, the gradients of scores are summed along them. Buckets are
found by comparing integers.
"""

import bisect
import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

_FURTHEST = 2**30
"""Twice as far is an int32."""


@dataclasses.dataclass(frozen=True)
class RelativeBuckets:
    """Which distances share a bucket: half of the buckets hold one each, the others grow logarithmically."""

    two_sided: bool
    """Half of the buckets are for keys behind the query; else all those share the bucket of distance 0."""
    max_distance: int = 128
    """From here on, all share the last bucket."""

    def refusal(self, buckets: int) -> str | None:
        """Why there cannot be so many buckets; None where there can."""
        if self.two_sided and (buckets < 4 or buckets % 2):
            return f"{buckets} buckets for two sides: it takes an even number from 4 on"
        if buckets < 2:
            return f"{buckets} buckets: it takes at least 2"
        exact = self._of_a_side(buckets) // 2
        if not exact < self.max_distance <= _FURTHEST:
            return (
                f"max_distance = {self.max_distance} for {buckets} buckets, which hold the distances below "
                f"{exact} one by one: it must be above {exact}, and at most {_FURTHEST}"
            )
        return None

    def starts(self, buckets: int) -> tuple[int, ...]:
        """The least distance of each bucket of a side.

        In float32 as T5's own code has it (mesh_tensorflow, `_relative_position_bucket`), by logarithms
        that are rounded correctly, and done once: no device's logarithm has a say.
        """
        side = self._of_a_side(buckets)
        exact = side // 2
        span = np.float32(math.log(self.max_distance / exact))

        def bucket(distance: int) -> int:
            if distance < exact:
                return distance
            grown = np.float32(math.log(np.float32(distance) / np.float32(exact))) / span
            return min(exact + int(grown * np.float32(side - exact)), side - 1)

        distances = range(2 * self.max_distance)  # at max_distance, rounding may have the last but one
        return tuple(bisect.bisect_left(distances, number, key=bucket) for number in range(side))

    def of(self, relative: Int[Array, "*shape"], buckets: int) -> Int[Array, "*shape"]:
        """The buckets of these places of a key less those of a query."""
        starts = np.array(self.starts(buckets)[1:], np.int32)
        behind = jnp.abs(relative) if self.two_sided else -jnp.minimum(relative, 0)
        found = jnp.sum(behind[..., None] >= starts, axis=-1, dtype=jnp.int32)
        return found + jnp.where(relative > 0, starts.size + 1, 0) if self.two_sided else found

    def _of_a_side(self, buckets: int) -> int:
        return buckets // 2 if self.two_sided else buckets


class RelativeBias(NamedTuple):
    """The table, and where the first query is."""

    table: Float[Array, "kv_heads group buckets"]
    distance: Int[Array, "#batch"]
    """Of the first query from the first key."""

    def of_pair(
        self, buckets: RelativeBuckets, i, j, queries: int, keys: int
    ) -> Float[Array, "#batch kv_heads group query key"]:
        """The bias of the scores of query chunk i, `queries` long, and key chunk j."""
        numbers = self._numbers(buckets, i, j, queries, keys)
        along = jnp.moveaxis(jnp.take(self.table, numbers, axis=-1), 2, 0)  # [batch, kv_heads, group, place]

        def row(query: Int[Array, ""]) -> Float[Array, "#batch kv_heads group key"]:
            return jax.lax.dynamic_slice_in_dim(along, queries - 1 - query, keys, axis=-1)

        return jax.vmap(row, out_axes=-2)(jnp.arange(queries))  # a CPU copies rows: twice as fast as skewing

    def gradient(
        self, buckets: RelativeBuckets, i, j, d_scores: Float[Array, "batch kv_heads group query key"]
    ) -> Float[Array, "kv_heads group buckets"]:
        """Of the table, from that of the scores of a pair of chunks."""
        if self.distance.shape[0] == 1:
            d_scores = jnp.sum(d_scores, axis=0, keepdims=True)
        *rows, queries, keys = d_scores.shape
        # Rows that are laid out as if each were one longer begin one place earlier than the row above.
        wide = jnp.pad(d_scores, [(0, 0)] * 4 + [(queries - 1, 0)]).reshape(*rows, -1)
        flat = jnp.pad(wide, [(0, 0)] * 3 + [(0, queries)])
        along = jnp.sum(flat.reshape(*rows, queries, queries + keys), axis=-2)
        numbers = self._numbers(buckets, i, j, queries, keys)
        chosen = jax.nn.one_hot(numbers, self.table.shape[-1], dtype=along.dtype)
        return jnp.einsum("bhgp,bpn->hgn", along, chosen, precision="highest")

    def _numbers(self, buckets: RelativeBuckets, i, j, queries: int, keys: int) -> Int[Array, "#batch place"]:
        """The buckets of a pair's diagonals, from that of its last query and first key to that of its first
        query and last key; and of one more, which has no scores."""
        diagonals = np.arange(queries + keys, dtype=np.int32) - (queries - 1)
        first = self.distance[:, None] + i * queries - j * keys
        return buckets.of(diagonals - first, self.table.shape[-1])


def whole_bias(
    table: Float[Array, "buckets heads"],
    buckets: RelativeBuckets,
    query_positions: Int[Array, "#batch query"],
    key_positions: Int[Array, "#batch key"],
) -> Float[Array, "#batch heads query key"]:
    """Of all scores at once, as the paper has it."""
    relative = key_positions[:, None, :] - query_positions[:, :, None]
    return jnp.moveaxis(table[buckets.of(relative, table.shape[0])], -1, 1)
