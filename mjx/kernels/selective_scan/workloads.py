"""The selective scan as models call it, and the work in it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mjx.kernels.selective_scan import selective_scan
from mjx.kernels.workload import Published, Work


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectiveScanWorkload:
    """A scan with skip connection and gate, from a state of zero."""

    name: str
    batch: int
    sequence: int
    channels: int
    state: int
    dtype: str = "bfloat16"

    def arguments(self) -> dict[str, jax.ShapeDtypeStruct]:
        tokens = (self.batch, self.sequence)
        of_channels = jax.ShapeDtypeStruct((*tokens, self.channels), self.dtype)
        of_state = jax.ShapeDtypeStruct((*tokens, self.state), self.dtype)
        return {
            "u": of_channels,
            "delta": of_channels,
            "A": jax.ShapeDtypeStruct((self.channels, self.state), "float32"),
            "B": of_state,
            "C": of_state,
            "D": jax.ShapeDtypeStruct((self.channels,), "float32"),
            "z": of_channels,
        }

    def function(self, implementation: str, config: Any = None) -> Callable[..., jax.Array]:
        del config  # chosen by the implementation

        def forward(u, delta, A, B, C, D, z):
            options = {"D": D, "z": z, "delta_softplus": True, "implementation": implementation}
            return selective_scan(u, delta, -jnp.exp(A), B, C, **options)

        return forward

    def configs(self, implementation: str, compute_capability: float) -> dict[str, Any]:
        del implementation, compute_capability  # there is one for every size
        return {}

    def work(self, *, backward: bool) -> Work:
        """Gu and Dao 2023, equation 2; no matrix products. For each token, channel and state: the decay, the
        drive, the recurrence and the output; backward these again, and a gradient of each."""
        tokens, size = self.batch * self.sequence, jnp.dtype(self.dtype).itemsize
        elements = tokens * self.channels * self.state
        read = size * tokens * (3 * self.channels + 2 * self.state)
        out = size * tokens * self.channels
        return Work(
            products=0,
            exps=elements,
            bytes=2 * read + out if backward else read + out,
            vector=(20 if backward else 6) * elements,
        )

    def published(self, *, backward: bool) -> Published | None:
        del backward
        return None


WORKLOAD = SelectiveScanWorkload
