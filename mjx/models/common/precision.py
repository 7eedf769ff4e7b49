"""Which dtype a model computes in."""

import jax
import jax.numpy as jnp


def compute_dtype(name: str) -> jnp.dtype:
    """`auto` is bfloat16 on GPUs, whose tensor cores it feeds, and float32 on CPUs."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)
