"""The Triton kernels of grouped matmul as they are shipped, compiled and watched without a GPU."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

from mjx.kernels.grouped_matmul.configurations import CONFIGS, KernelConfig
from mjx.kernels.grouped_matmul.triton import grouped_matmul
from mjx.kernels.shipped import Shipped, ShippedSources, Source
from mjx.kernels.triton_launch import Launcher, launches_of, source_of

_GPUS = {"hopper": "h100", "ampere": "a100"}
_DTYPES = {2: "bfloat16", 4: "float32"}
"""By size; float16 compiles to what bfloat16 does."""
EVEN, UNEVEN = (4096, 14336), (2888, 1000)
"""Features inside and out: with tiles that divide them, and of which none does."""


def label(dtype: str, number: int) -> str:
    """What the report calls a configuration: the first of its row, or a further one."""
    return dtype + (f", choice {number + 1}" if number else "")


def arguments(dtype: str, features: tuple[int, int] = EVEN, groups: int = 8, rows: int = 16384) -> tuple:
    """Of `program`: a layer of eight experts."""
    inner, outer = features
    return (
        jax.ShapeDtypeStruct((rows, inner), dtype),
        jax.ShapeDtypeStruct((groups, inner, outer), dtype),
        jax.ShapeDtypeStruct((groups,), "int32"),
        jax.ShapeDtypeStruct((rows, outer), dtype),
    )


def program(launcher: Launcher, config: KernelConfig | None = None) -> Callable[..., Any]:
    """Forward and backward."""

    def run(rows, kernels, sizes, d_out):
        def forward(rows, kernels):
            return grouped_matmul(rows, kernels, sizes, config=config, launch=launcher)

        out, transpose = jax.vjp(forward, rows, kernels)
        return out, transpose(d_out)

    return run


def sources(
    dtype: str, features: tuple[int, int], config: KernelConfig, compute_capability: float
) -> list[Source]:
    """All three kernels."""
    launches = launches_of(functools.partial(program, config=config), *arguments(dtype, features))
    return [source_of(launch, compute_capability) for launch in launches]


def _triton() -> Iterator[Shipped]:
    for (architecture, size), configs in CONFIGS.items():
        dtype = _DTYPES[size]
        for number, config in enumerate(configs):
            for features in (EVEN, UNEVEN):
                uneven = ", uneven sizes" if features == UNEVEN else ""
                yield ShippedSources(
                    configuration=label(dtype, number) + uneven,
                    gpus=(_GPUS[architecture],),
                    tensor_cores=size == 2,
                    forward=("forward_kernel",),
                    sources=functools.partial(sources, dtype, features, config),
                )


PROGRAMS = {"triton": _triton}
"""Implementation → its programs."""
