"""What the GPU kernels of an op are shipped as: programs that are compiled, and watched, without a GPU.

An op's `shipped.py` lists them in PROGRAMS: implementation → function that makes them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assembly:
    """A kernel in PTX, as another compiler than XLA gives it to NVIDIA's assembler."""

    name: str
    ptx: str
    threads: int
    """Of a block."""
    shared_memory: int
    """Bytes of a block, asked for when it is launched."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A kernel as another compiler than XLA is given it."""

    text: str
    """The same makes the same assembly, by the same compiler."""
    assemble: Callable[[], Assembly]
    """Compiles it, once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shipped:
    """One block configuration, as the report and the compile tests take it."""

    configuration: str
    """What the report calls it, such as "bfloat16, head_dim 128"."""
    gpus: tuple[str, ...]
    """Names of `mjx.gpus.target.gpu_names()` for which it must compile."""
    tensor_cores: bool
    """Whether every kernel multiplies matrices on them."""
    forward: tuple[str, ...]
    """How the names of the forward pass's kernels begin."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShippedProgram(Shipped):
    """Kernels in a program that XLA compiles."""

    function: Callable[..., Any]
    """Forward and backward, so that every kernel of the configuration is in it."""
    arguments: tuple[jax.ShapeDtypeStruct, ...]
    kernels: str
    """How the names of the op's own kernels begin; the program's others are XLA's."""
    mosaic: bool = False
    """Whether they are Pallas' Mosaic GPU kernels, which XLA hands to a compiler of theirs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShippedSources(Shipped):
    """Kernels that another compiler makes."""

    sources: Callable[[float], list[Source]]
    """For a compute capability."""
