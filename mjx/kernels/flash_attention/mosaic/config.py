"""Block sizes of the Mosaic kernels of attention, as data."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class BlockSizes:
    """Of one kernel."""

    query: int
    """Queries of a block; in the kernels that walk over keys, of each warpgroup that computes."""
    key: int
    """Keys of a block; in the kernel that walks over queries, of each warpgroup that computes."""
    stages: int
    """Blocks that are loaded ahead."""
    compute: int = 2
    """Warpgroups that compute; one more loads."""


@dataclasses.dataclass(frozen=True)
class KernelConfig:
    """The block sizes of the three kernels."""

    forward: BlockSizes
    keys: BlockSizes
    """Gradients of keys and values."""
    queries: BlockSizes
    """Gradient of queries."""


CONFIGS: dict[tuple[int, int], KernelConfig] = {
    (64, 64): KernelConfig(
        forward=BlockSizes(64, 128, 4), keys=BlockSizes(64, 64, 4), queries=BlockSizes(64, 64, 4)
    ),
    (128, 128): KernelConfig(
        forward=BlockSizes(64, 128, 2), keys=BlockSizes(64, 64, 3), queries=BlockSizes(64, 64, 4)
    ),
}
"""(head_dim, value_dim) → block sizes, for bfloat16 and float16 alike.

None spills; one block of threads fills a multiprocessor's registers, so its shared memory may be used up.

With a window or a soft-cap the gradients of keys spill 88 to 376 bytes at 128/128.

Of 192/128 and 256/256 the gradients of keys spill: their accumulators alone take 160 and 256 registers.
"""
