"""How the Triton kernels of grouped matmul are cut and run, as data.

Every row compiles without spilling a register (`shipped.py`, kernels/report.json); which of a row's
configurations is fastest only a GPU can tell (`mjx bench kernels --sweep`).
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import DTypeLike

Architecture = Literal["ampere", "hopper"]


@dataclasses.dataclass(frozen=True)
class Tile:
    """What a kernel takes of each of the three axes at a time. A program makes one tile of two of them, and
    goes over the third, which is summed over, in such steps."""

    rows: int
    inner: int
    outer: int
    num_warps: int
    num_stages: int


@dataclasses.dataclass(frozen=True)
class KernelConfig:
    """The tiles of the three kernels."""

    forward: Tile
    rows: Tile
    """Gradient of rows."""
    kernels: Tile
    """Gradient of kernels."""
    panel: int = 8
    """Tiles that lie below each other and are made before those to their right: so the programs that run at
    the same time read little between them, which stays in the L2 cache."""


CONFIGS: dict[tuple[Architecture, int], tuple[KernelConfig, ...]] = {
    ("hopper", 2): (
        KernelConfig(
            forward=Tile(128, 64, 256, 8, 3), rows=Tile(128, 256, 64, 8, 3), kernels=Tile(64, 128, 256, 8, 3)
        ),
        KernelConfig(
            forward=Tile(128, 64, 128, 4, 3), rows=Tile(128, 128, 64, 4, 3), kernels=Tile(64, 128, 128, 4, 3)
        ),
    ),
    ("ampere", 2): (
        KernelConfig(
            forward=Tile(128, 32, 128, 4, 4), rows=Tile(128, 128, 32, 4, 4), kernels=Tile(32, 128, 128, 4, 4)
        ),
    ),
    # Without tensor cores: products of float32 are exact.
    ("hopper", 4): (
        KernelConfig(
            forward=Tile(64, 16, 64, 8, 2), rows=Tile(64, 64, 16, 8, 2), kernels=Tile(16, 64, 64, 8, 2)
        ),
    ),
    ("ampere", 4): (
        KernelConfig(
            forward=Tile(64, 16, 64, 8, 2), rows=Tile(64, 64, 16, 8, 2), kernels=Tile(16, 64, 64, 8, 2)
        ),
    ),
}
"""(architecture, bytes of an element) → configurations, of which calls take the first."""


def configs(dtype: DTypeLike, compute_capability: float | None) -> tuple[KernelConfig, ...]:
    """For a call; those for Ampere, which ask for less, where the GPU is not known or knows no wgmma."""
    hopper = compute_capability is not None and 9 <= compute_capability < 10
    return CONFIGS["hopper" if hopper else "ampere", jnp.dtype(dtype).itemsize]
