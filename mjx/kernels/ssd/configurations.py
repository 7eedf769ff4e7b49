"""How the kernels of state-space duality are cut and run, as data."""

import dataclasses
from typing import Any

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class States:
    """The kernel that walks the chunks: the part of a state that is one program's, and how it is run."""

    head_dim: int
    state: int
    num_warps: int
    num_stages: int


@dataclasses.dataclass(frozen=True)
class Chunks:
    """A kernel that has a program for each chunk."""

    heads: int
    """Of one group, one after the other, at most."""
    state: int
    """So many of its features at a time; of the gradients of B and C, for each program."""
    num_warps: int
    num_stages: int


@dataclasses.dataclass(frozen=True)
class KernelConfig:
    """Tokens of a chunk, and the four kernels."""

    chunk: int
    states: States
    outputs: Chunks
    inputs: Chunks
    """Gradients of x and the weights of tokens."""
    shared: Chunks
    """Gradients of B and C."""


AMPERE, HOPPER = 8.0, 9.0

LARGEST_HEAD_DIM, LARGEST_STATE = 128, 256


def default_config(head_dim: int, state: int, dtype: Any, architecture: float | None) -> KernelConfig:
    """`architecture` is a compute capability; where it is not known, what runs on all is taken."""
    hopper = architecture is not None and architecture >= HOPPER
    wide = jnp.dtype(dtype).itemsize == 4
    for largest_head_dim, largest_state, config in TABLE[HOPPER if hopper else AMPERE, wide]:
        if head_dim <= largest_head_dim and state <= largest_state:
            return config
    raise ValueError(f"no configuration for head_dim {head_dim} and state {state}")


_PART = States(64, 64, 4, 2)

_HOPPER_64 = KernelConfig(64, _PART, Chunks(8, 128, 4, 2), Chunks(8, 64, 8, 1), Chunks(8, 64, 8, 2))
_HOPPER_128 = KernelConfig(64, _PART, Chunks(8, 64, 8, 1), Chunks(1, 64, 8, 1), Chunks(8, 64, 8, 1))
_AMPERE_64 = KernelConfig(32, _PART, Chunks(8, 128, 4, 2), Chunks(8, 64, 4, 1), Chunks(8, 32, 4, 1))
_AMPERE_128 = KernelConfig(32, _PART, Chunks(8, 64, 4, 2), Chunks(8, 64, 8, 1), Chunks(8, 32, 8, 1))
# Products of float32 have no tensor core, and their operands stand in registers whole.
_SMALL_PART = States(32, 32, 4, 1)
_FLOAT32_64 = KernelConfig(16, _SMALL_PART, Chunks(8, 16, 4, 1), Chunks(8, 16, 8, 1), Chunks(8, 16, 8, 1))
_FLOAT32_128 = KernelConfig(16, _SMALL_PART, Chunks(8, 16, 8, 1), Chunks(8, 16, 8, 1), Chunks(8, 32, 8, 1))
_HOPPER_FLOAT32_64 = dataclasses.replace(_FLOAT32_64, inputs=Chunks(8, 16, 16, 1))
_HOPPER_FLOAT32_128 = dataclasses.replace(_FLOAT32_128, inputs=Chunks(8, 16, 16, 1))

TABLE = {
    (HOPPER, False): ((64, 128, _HOPPER_64), (64, 256, _HOPPER_64), (128, 256, _HOPPER_128)),
    (AMPERE, False): ((64, 128, _AMPERE_64), (64, 256, _AMPERE_64), (128, 256, _AMPERE_128)),
    (HOPPER, True): ((64, 256, _HOPPER_FLOAT32_64), (128, 256, _HOPPER_FLOAT32_128)),
    (AMPERE, True): ((64, 256, _FLOAT32_64), (128, 256, _FLOAT32_128)),
}
"""(architecture, whether float32) → (head_dim at most, state at most, configuration), the first that fits."""
