"""What the GPU kernels of an op are shipped as: programs that are compiled, and watched, without a GPU."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shipped:
    """A program with one block configuration in it, as the report and the compile tests take it.

    An op's `shipped.py` lists them in PROGRAMS: implementation → function that makes them.
    """

    configuration: str
    """What the report calls it, such as "bfloat16, head_dim 128"."""
    function: Callable[..., Any]
    """Forward and backward, so that every kernel of the configuration is in it."""
    arguments: tuple[jax.ShapeDtypeStruct, ...]
    kernels: str
    """How the names of the op's own kernels begin; the program's others are XLA's."""
    gpus: tuple[str, ...]
    """Names of `mjx.plan.gpu.gpu_names()` for which it must compile."""
    tensor_cores: bool
    """Whether every kernel multiplies matrices on them."""
