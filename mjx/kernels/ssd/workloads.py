"""State-space duality as models call it, and the work in it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mjx.kernels.ssd import ssd
from mjx.kernels.workload import Published, Work

CHUNK = 64
"""Tokens of a chunk, which the number of operations depends on; other chunks, other numbers."""
_PUBLISHED = 23.7e6 * 128
"""Tokens × heads a second on one H100, forward (128 heads, head_dim 64, 1 group, state 128, 16384 tokens)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SSDWorkload:
    """A scan with a skip connection, from a state of zero."""

    name: str
    batch: int
    sequence: int
    heads: int
    head_dim: int
    groups: int
    state: int
    dtype: str = "bfloat16"

    def arguments(self) -> dict[str, jax.ShapeDtypeStruct]:
        tokens = (self.batch, self.sequence)
        shared = jax.ShapeDtypeStruct((*tokens, self.groups, self.state), self.dtype)
        return {
            "x": jax.ShapeDtypeStruct((*tokens, self.heads, self.head_dim), self.dtype),
            "dt": jax.ShapeDtypeStruct((*tokens, self.heads), "float32"),
            "A": jax.ShapeDtypeStruct((self.heads,), "float32"),
            "B": shared,
            "C": shared,
            "D": jax.ShapeDtypeStruct((self.heads,), "float32"),
        }

    def function(self, implementation: str, config: Any = None) -> Callable[..., jax.Array]:
        del config  # chosen by the implementation

        def forward(x, dt, A, B, C, D):
            # Decays, whatever the numbers.
            return ssd(x, dt, -jnp.exp(A), B, C, D=D, dt_softplus=True, implementation=implementation)

        return forward

    def configs(self, implementation: str, compute_capability: float) -> dict[str, Any]:
        del implementation, compute_capability  # there is one for every size
        return {}

    def work(self, *, backward: bool) -> Work:
        """Dao and Gu 2024, section 6: per head the products inside chunks and with states, per group C Bᵀ."""
        tokens, size = self.batch * self.sequence, jnp.dtype(self.dtype).itemsize
        inside, with_state = 2 * CHUNK * self.head_dim, 2 * self.state * self.head_dim
        of_group = 2 * CHUNK * self.state
        if backward:
            of_head, of_group = 2 * inside + 4 * with_state, 3 * of_group
        else:
            of_head = inside + 2 * with_state
        moved = size * (self.heads * self.head_dim + 2 * self.groups * self.state) + 4 * self.heads
        out = size * self.heads * self.head_dim
        return Work(
            products=tokens * (self.heads * of_head + self.groups * of_group),
            exps=tokens * self.heads * (CHUNK / 2 + 2),
            bytes=tokens * (2 * moved + out if backward else moved + out),
        )

    def published(self, *, backward: bool) -> Published | None:
        if backward or (self.head_dim, self.state) != (64, 128):
            return None
        seconds = self.batch * self.sequence * self.heads / _PUBLISHED
        return Published(seconds=seconds, source="the fused Triton kernel of vLLM, 2025")


WORKLOAD = SSDWorkload
