"""The shipped configurations of the kernels of state-space duality, as programs."""

import jax
import jax.numpy as jnp

from mjx.kernels.shipped import ShippedProgram
from mjx.kernels.ssd import pallas_triton
from mjx.kernels.ssd.configurations import HOPPER, TABLE

_GPUS = {True: ("h100",), False: ("a100",)}


def _pallas_triton() -> list[ShippedProgram]:
    """With all that the op can do, which asks for the most registers."""
    found = []
    for (architecture, wide), rows in TABLE.items():
        for head_dim, state, config in rows:
            dtype = jnp.float32 if wide else jnp.bfloat16

            def gradients(x, dt, A, B, C, D, z, initial_state, starts, config=config):
                def loss(x, dt, A, B, C, D, z, initial_state):
                    y, last = pallas_triton.ssd(
                        x,
                        dt,
                        A,
                        B,
                        C,
                        D=D,
                        z=z,
                        initial_state=initial_state,
                        starts=starts,
                        chunk_size=config.chunk,
                        config=config,
                    )
                    return jnp.sum(jnp.square(y.astype(jnp.float32))) + jnp.sum(jnp.square(last))

                return jax.grad(loss, tuple(range(8)))(x, dt, A, B, C, D, z, initial_state)

            heads, groups, tokens = 16, 2, 1024
            shapes = {
                (2, tokens, heads, head_dim): dtype,
                (2, tokens, heads): jnp.float32,
                (heads,): jnp.float32,
                (2, tokens, groups, state): dtype,
                (heads, 1): jnp.float32,
                (2, heads, head_dim, state): jnp.float32,
                (2, tokens): jnp.bool_,
            }
            x, dt, A, B, D, initial_state, starts = (
                jax.ShapeDtypeStruct(shape, kind) for shape, kind in shapes.items()
            )
            found.append(
                ShippedProgram(
                    configuration=f"{jnp.dtype(dtype).name}, head_dim {head_dim}, state {state}",
                    function=gradients,
                    arguments=(x, dt, A, B, B, D, x, initial_state, starts),
                    kernels="ssd_",
                    gpus=_GPUS[architecture == HOPPER],
                    tensor_cores=not wide,
                    forward=("ssd_states", "ssd_outputs"),
                )
            )
    return found


PROGRAMS = {"pallas_triton": _pallas_triton}
"""Implementation → function that makes its programs."""
