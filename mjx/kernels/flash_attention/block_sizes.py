"""The block sizes of the Pallas-Triton kernels of attention, a table.

Every row compiles without spilling a register for the plainest call and for one with all options
(`shipped.py`, kernels/report.json); which of a row's configurations is fastest only a GPU can tell
(`mjx bench kernels --sweep`). Registers and tensor cores do not depend on anything else than the key.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import DTypeLike

Architecture = Literal["ampere", "hopper"]


@dataclasses.dataclass(frozen=True)
class BlockSizes:
    """Tokens of a block of queries and of keys, and how a program is run."""

    query: int
    key: int
    num_warps: int
    num_stages: int = 2


@dataclasses.dataclass(frozen=True)
class KernelConfig:
    """The block sizes of the kernels."""

    forward: BlockSizes
    keys: BlockSizes
    """Gradients of keys and values."""
    queries: BlockSizes
    """Gradient of queries."""
    values: BlockSizes | None = None
    """Where heads are too wide for both sums in the registers of one program: the gradient of values has a
    kernel of its own, which makes the scores again."""


class Row(NamedTuple):
    """What block sizes depend on."""

    architecture: Architecture
    bytes: int
    """Of an element."""
    width: int
    """The power of two that holds head_dim and value_dim, at least 64."""


_FLOAT32 = BlockSizes(32, 32, 8, 1)
_FLOAT32_WIDE = KernelConfig(BlockSizes(32, 16, 8, 1), _FLOAT32, _FLOAT32, _FLOAT32)

CONFIGS: dict[Row, tuple[KernelConfig, ...]] = {
    Row("hopper", 2, 64): (
        KernelConfig(BlockSizes(128, 64, 4), BlockSizes(64, 64, 4), BlockSizes(64, 64, 4)),
        KernelConfig(BlockSizes(128, 128, 8), BlockSizes(64, 128, 8), BlockSizes(128, 64, 8)),
    ),
    Row("hopper", 2, 128): (
        KernelConfig(BlockSizes(128, 128, 8), BlockSizes(64, 64, 8), BlockSizes(128, 64, 8)),
        KernelConfig(BlockSizes(64, 64, 4), BlockSizes(32, 64, 8), BlockSizes(64, 64, 4)),
    ),
    Row("hopper", 2, 256): (
        KernelConfig(
            BlockSizes(64, 64, 8), BlockSizes(32, 64, 8), BlockSizes(64, 32, 8), BlockSizes(64, 64, 8)
        ),
    ),
    Row("ampere", 2, 64): (
        KernelConfig(BlockSizes(128, 64, 8), BlockSizes(64, 64, 4), BlockSizes(64, 64, 4)),
        KernelConfig(BlockSizes(64, 64, 4), BlockSizes(64, 32, 4), BlockSizes(64, 32, 4)),
    ),
    Row("ampere", 2, 128): (
        KernelConfig(BlockSizes(128, 64, 8), BlockSizes(64, 64, 8), BlockSizes(64, 64, 8)),
    ),
    Row("ampere", 2, 256): (
        KernelConfig(
            BlockSizes(64, 64, 8, 1),
            BlockSizes(64, 64, 8, 1),
            BlockSizes(64, 64, 8, 1),
            BlockSizes(64, 64, 8, 1),
        ),
    ),
    # Without tensor cores: products of float32 are exact.
    Row("hopper", 4, 64): (KernelConfig(_FLOAT32, _FLOAT32, _FLOAT32),),
    Row("hopper", 4, 128): (_FLOAT32_WIDE,),
    Row("hopper", 4, 256): (_FLOAT32_WIDE,),
    Row("ampere", 4, 64): (KernelConfig(_FLOAT32, _FLOAT32, _FLOAT32),),
    Row("ampere", 4, 128): (_FLOAT32_WIDE,),
    Row("ampere", 4, 256): (_FLOAT32_WIDE,),
}
"""The first of a row is what calls take."""


def configs(
    head_dim: int, value_dim: int, dtype: DTypeLike, compute_capability: float | None
) -> tuple[KernelConfig, ...]:
    """For a call; those for Ampere where the GPU is not known or knows no wgmma."""
    hopper = compute_capability is not None and 9 <= compute_capability < 10
    return CONFIGS[
        Row("hopper" if hopper else "ampere", jnp.dtype(dtype).itemsize, width(head_dim, value_dim))
    ]


def width(head_dim: int, value_dim: int) -> int:
    """As the table's rows have it."""
    return max(64, 1 << (max(head_dim, value_dim) - 1).bit_length())
