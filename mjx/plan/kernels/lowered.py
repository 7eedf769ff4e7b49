"""A program as its compiler is given it, and a fingerprint of that: the same makes the same machine code."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from mjx.gpus.target import device_of, lowering_for, specification
from mjx.kernels.shipped import Source


def lower(function: Callable[..., Any], *arguments: Any, gpu: str) -> jax.stages.Lowered:
    """A program for a GPU that need not be here, with nothing in it of the files and lines that it is from.

    `arguments` are trees of arrays or of `jax.ShapeDtypeStruct`s.

    Raises:
        InputError: no compiler is installed.
    """
    where = SingleDeviceSharding(device_of(gpu))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), arguments)
    with lowering_for(gpu), _without_places():
        return jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",))


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Kernels are bytes inside of a program, places too: they could not be left out when it is read."""
    option = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, option)
    jax.config.update(option, 0)
    try:
        yield
    finally:
        jax.config.update(option, before)


def fingerprint(program: jax.stages.Lowered | list[Source], gpu: str) -> str:
    """The same in every process and folder, and whatever moves in a source file without being changed."""
    if isinstance(program, jax.stages.Lowered):
        parts = [program.as_text()]
    else:
        parts = [source.text for source in program]
    return hashlib.sha256("\n".join([specification(gpu), *parts]).encode()).hexdigest()[:16]
