"""The Triton kernels of the selective scan as they are shipped, compiled and watched without a GPU.

They are not in what XLA compiles with jax-triton 0.3, so that Triton compiles them by itself.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from mjx.kernels.selective_scan.triton import KernelConfig, config_for, selective_scan
from mjx.kernels.shipped import Shipped, ShippedSources, Source
from mjx.kernels.triton_launch import Launch, Launcher, launches_of, source_of


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What a call can look like: a kernel is compiled for each of these, besides the sizes."""

    dtype: str
    state: int
    features: bool
    """D, z and starts."""

    def __str__(self) -> str:
        return f"{self.dtype}, state {self.state}{', D, z and starts' if self.features else ''}"


CONFIGURATIONS = (
    Configuration("bfloat16", 16, True),
    Configuration("bfloat16", 16, False),
    Configuration("float16", 16, True),
    Configuration("float32", 16, True),
    Configuration("bfloat16", 1, True),
    Configuration("bfloat16", 64, True),
    Configuration("bfloat16", 256, True),
)


def arguments(dtype: str, state: int, batch: int = 8, length: int = 4096, channels: int = 1536) -> tuple:
    """Of `program`: a layer of Mamba-130M."""
    wide, half = jnp.dtype("float32"), jnp.dtype(dtype)
    tokens, of_state = (batch, length, channels), (batch, length, state)
    shapes = [(tokens, half), (tokens, wide), ((channels, state), wide), (of_state, half), (of_state, half)]
    shapes += [((channels,), wide), (tokens, half), ((batch, channels, state), wide)]
    shapes += [((batch, length), jnp.dtype("bool"))]
    return tuple(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes)


def program(
    *, launcher: Launcher, config: KernelConfig | None = None, features: bool = True
) -> Callable[..., Any]:
    """Forward and backward."""

    def run(u, delta, A, B, C, D, z, initial_state, starts):
        def scan(u, delta, A, B, C, D, z, initial_state):
            return selective_scan(
                u,
                delta,
                A,
                B,
                C,
                D=D if features else None,
                z=z if features else None,
                initial_state=initial_state,
                starts=starts if features else None,
                config=config,
                launch=launcher,
            )

        results, transpose = jax.vjp(scan, u, delta, A, B, C, D, z, initial_state)
        return transpose(results)

    return run


def launches(configuration: Configuration, compute_capability: float) -> list[Launch]:
    """The forward kernel and the backward kernel, with shapes for arrays."""
    config = config_for(configuration.state, compute_capability)
    return launches_of(
        lambda launcher: program(launcher=launcher, config=config, features=configuration.features),
        *arguments(configuration.dtype, configuration.state),
    )


def sources(configuration: Configuration, compute_capability: float) -> list[Source]:
    """Both kernels."""
    return [source_of(launch, compute_capability) for launch in launches(configuration, compute_capability)]


def _triton() -> Iterator[Shipped]:
    for configuration in CONFIGURATIONS:
        yield ShippedSources(
            configuration=str(configuration),
            gpus=("h100", "a100"),
            tensor_cores=False,
            forward=("forward_kernel",),
            sources=functools.partial(sources, configuration),
        )


PROGRAMS = {"triton": _triton}
"""Implementation → its programs."""
