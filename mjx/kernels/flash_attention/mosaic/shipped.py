"""What the Mosaic kernels of attention are shipped as."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mjx.kernels.flash_attention.mosaic import attention
from mjx.kernels.flash_attention.mosaic.config import CONFIGS
from mjx.kernels.flash_attention.options import AttentionOptions
from mjx.kernels.shipped import ShippedProgram


def _gradients(causal: bool, *arrays: jax.Array) -> Any:
    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        out, log_sum_exp = attention(q, k, v, AttentionOptions(0.1, causal))
        return jnp.sum(out.astype(jnp.float32)) + jnp.sum(log_sum_exp)

    return jax.grad(loss, (0, 1, 2))(*arrays)


def mosaic() -> list[ShippedProgram]:
    """Every row of the table of block sizes; 2000 tokens are no whole number of blocks."""
    return [
        ShippedProgram(
            configuration=f"{dtype}, head_dim {head_dim}, {'causal' if causal else 'full'}",
            function=functools.partial(_gradients, causal),
            arguments=tuple(
                jax.ShapeDtypeStruct((2, 2000, heads, width), dtype)
                for heads, width in ((8, head_dim), (2, head_dim), (2, value_dim))
            ),
            kernels="flash_attention_mosaic_",
            mosaic=True,
            gpus=("h100",),
            tensor_cores=True,
            forward=("flash_attention_mosaic_forward",),
        )
        for (head_dim, value_dim) in CONFIGS
        for dtype, causal in (("bfloat16", True), ("bfloat16", False), ("float16", True))
    ]
