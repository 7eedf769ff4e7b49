"""GPUs that are not here: what XLA has to know of one to compile for it."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import AbstractDevice, AbstractMesh

from mjx.errors import InputError
from mjx.gpus.toolkit import INSTALL

SPECIFICATIONS = Path(__file__).parent
"""NAME.txtpb: XLA's GpuTargetConfigProto, from the data sheet."""


def gpu_names() -> list[str]:
    """What can be compiled for."""
    return sorted(path.stem for path in SPECIFICATIONS.glob("*.txtpb"))


def specification(name: str) -> str:
    """XLA's description of a GPU, as text.

    Raises:
        InputError: a name that is not among `gpu_names()`.
    """
    if name not in gpu_names():
        raise InputError(f"gpu = {name!r} is not known (choose from {', '.join(gpu_names())})")
    return (SPECIFICATIONS / f"{name}.txtpb").read_text(encoding="utf-8")


@functools.cache
def device_of(name: str) -> Any:
    """One GPU as a device that programs can be compiled for, but not run on.

    Raises:
        InputError: XLA's CUDA compiler is not installed.
    """
    from jax.experimental import topologies

    try:
        topology = topologies.get_topology_desc(
            platform="cuda", topology_name="", target_config=specification(name), topology="1x1x1"
        )
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"XLA cannot compile for GPUs here ({error}): {INSTALL}") from error
    return topology.devices[0]


@contextlib.contextmanager
def lowering_for(name: str) -> Iterator[None]:
    """Where programs are traced and lowered as if the GPU were there; needs no compiler."""
    kind = device_kind(name)
    mesh = AbstractMesh((), (), abstract_device=AbstractDevice(kind, None, "cuda"))
    with jax.sharding.use_abstract_mesh(mesh):
        yield


def device_kind(name: str) -> str:
    """As CUDA calls it, "NVIDIA H100 80GB HBM3"."""
    for line in specification(name).splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "device_description_str":
            return value.strip('"')
    raise InputError(f"{name}.txtpb says no device_description_str")
