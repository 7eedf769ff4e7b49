"""Rows sorted by group, cut into blocks of one group each."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

BLOCK = 64
"""Rows of a block, measured on CPUs: fewer make small products, more leave more of a group's last empty."""


class BlockTable(NamedTuple):
    """Block i is the sorted rows start[i] … stop[i] (exclusive), all of them of group[i].

    The arrays are as long as the worst case. Blocks from `used` on are empty: start = stop = the sum of the
    sizes, and their group is one that exists, so that it can be read by index.
    """

    group: Int[Array, " blocks"]
    start: Int[Array, " blocks"]
    stop: Int[Array, " blocks"]
    used: Int[Array, ""]


def block_table(sizes: Int[Array, " groups"], rows: int, block: int) -> BlockTable:
    """The blocks of at most `block` rows; `sizes` are the rows of each group, in their order.

    A group's first row begins a block, so that no block is full but where its group has as many rows, and
    rows need no padding. A group without rows has no block. The sum of the sizes is at most `rows`.
    """
    groups = sizes.shape[0]
    # Σ ⌈size / block⌉ is largest where each group has one row more than full blocks, and the first the rest.
    begun = min(groups, rows)
    number = jnp.arange((rows + begun * (block - 1)) // block, dtype=jnp.int32)
    sizes = sizes.astype(jnp.int32)
    last = jnp.cumsum(sizes, dtype=jnp.int32)
    blocks = (sizes + block - 1) // block
    behind = jnp.cumsum(blocks, dtype=jnp.int32)
    # Compared with every group, not searched: a search is a loop, and a vmap of it is refused by shard_map.
    group = jnp.sum(behind[None, :] <= number[:, None], axis=1, dtype=jnp.int32)
    group = jnp.minimum(group, groups - 1)
    start = (last - sizes)[group] + (number - (behind - blocks)[group]) * block
    start = jnp.minimum(start, last[group])
    return BlockTable(group, start, jnp.minimum(start + block, last[group]), behind[-1])
