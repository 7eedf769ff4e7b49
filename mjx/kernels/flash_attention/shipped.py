"""The GPU kernels of attention as they are shipped: a program for each block configuration."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mjx.kernels.flash_attention import pallas_triton
from mjx.kernels.flash_attention.block_sizes import CONFIGS
from mjx.kernels.flash_attention.mosaic.shipped import mosaic
from mjx.kernels.flash_attention.options import AttentionOptions
from mjx.kernels.shipped import Shipped, ShippedProgram

_GPUS = {"hopper": "h100", "ampere": "a100"}
_DTYPES = {2: "bfloat16", 4: "float32"}
"""By size; float16 compiles to what bfloat16 does."""


def _pallas_triton() -> Iterator[Shipped]:
    """The plainest call, and one with every option, which needs most registers."""
    for row, configs in CONFIGS.items():
        dtype = _DTYPES[row.bytes]
        for number, config in enumerate(configs):
            named = {label(dtype, row.width, number): (row.width, row.width)}
            named |= {f"{name}, every option": widths for name, widths in named.items()}
            if row.width == 256:
                named[f"{dtype}, head_dim 192, value_dim 128"] = (192, 128)
            for name, widths in named.items():
                every_option = name.endswith("every option")
                yield ShippedProgram(
                    configuration=name,
                    function=functools.partial(gradients, pallas_triton.attention, config, every_option),
                    arguments=arguments(dtype, *widths),
                    kernels="flash_attention_",
                    gpus=(_GPUS[row.architecture],),
                    tensor_cores=row.bytes == 2,
                    forward=("flash_attention_forward",),
                )


def label(dtype: str, width: int, number: int) -> str:
    """What the report calls a configuration: the first of its row, or a further one."""
    return f"{dtype}, head_dim {width}" + (f", choice {number + 1}" if number else "")


def arguments(dtype: str, head_dim: int, value_dim: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """q, k, v, segment ids and sinks."""
    return (
        jax.ShapeDtypeStruct((2, 2048, 16, head_dim), dtype),
        jax.ShapeDtypeStruct((2, 2048, 4, head_dim), dtype),
        jax.ShapeDtypeStruct((2, 2048, 4, value_dim), dtype),
        jax.ShapeDtypeStruct((2, 2048), "int32"),
        jax.ShapeDtypeStruct((16,), "float32"),
    )


def gradients(
    attention: Callable[..., Any],
    config: Any,
    every_option: bool,
    q: Array,
    k: Array,
    v: Array,
    segments,
    sinks,
) -> Any:
    """Of q, k and v; the forward pass is in it."""
    options = AttentionOptions(scale=0.1)
    if every_option:
        options = options._replace(query_segment_ids=segments, key_segment_ids=segments, sinks=sinks)
        options = options._replace(window=1024, soft_cap=50.0)

    def loss(q, k, v):
        out, _ = attention(q, k, v, options, config=config)
        return jnp.sum(jnp.square(out.astype(jnp.float32)))

    return jax.grad(loss, (0, 1, 2))(q, k, v)


PROGRAMS = {"pallas_triton": _pallas_triton, "mosaic": mosaic}
"""Implementation → its programs."""
