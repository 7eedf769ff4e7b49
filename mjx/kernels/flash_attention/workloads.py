"""Attention as models call it, and the work in it."""

import dataclasses
import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp

from mjx.kernels.flash_attention import block_sizes, flash_attention, shipped
from mjx.kernels.flash_attention.options import AttentionOptions
from mjx.kernels.workload import Published, Work

_TOKAMAX = "tokamax's Mosaic kernel, July 2026"
_PUBLISHED = {64: (413e12, 286e12), 128: (568e12, 408e12), 256: (650e12, 155e12)}
"""head_dim → FLOP/s on one H100, forward and backward: bfloat16, causal, 4 × 4096 tokens (256: 1 × 16384)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionWorkload:
    """Causal self-attention."""

    name: str
    batch: int
    sequence: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int | None = None
    """None: head_dim."""
    window: int | None = None
    dtype: str = "bfloat16"

    def arguments(self) -> dict[str, jax.ShapeDtypeStruct]:
        widths = {"q": self.head_dim, "k": self.head_dim, "v": self.value_dim or self.head_dim}
        return {
            name: jax.ShapeDtypeStruct(
                (self.batch, self.sequence, self.heads if name == "q" else self.kv_heads, width), self.dtype
            )
            for name, width in widths.items()
        }

    def function(self, implementation: str, config: Any = None) -> Callable[..., jax.Array]:
        if config is None:
            return functools.partial(flash_attention, window=self.window, implementation=implementation)
        module = import_module(f"mjx.kernels.flash_attention.{implementation}")

        def forward(q, k, v):
            options = AttentionOptions(scale=self.head_dim**-0.5, window=self.window)
            return module.attention(q, k, v, options, config=config)[0]

        return forward

    def configs(self, implementation: str, compute_capability: float) -> dict[str, Any]:
        if implementation != "pallas_triton":
            return {}
        width = self.value_dim or self.head_dim
        found = block_sizes.configs(self.head_dim, width, self.dtype, compute_capability)
        power = block_sizes.width(self.head_dim, width)
        return {shipped.label(self.dtype, power, number): config for number, config in enumerate(found)}

    def work(self, *, backward: bool) -> Work:
        """Two products forward, five backward, of which one makes the scores again (Dao 2023)."""
        d, v = self.head_dim, self.value_dim or self.head_dim
        seen = min(self.window or self.sequence, self.sequence)
        pairs = self.sequence * seen - seen * (seen - 1) / 2
        scores = self.batch * self.heads * pairs
        tokens, size = self.batch * self.sequence, jnp.dtype(self.dtype).itemsize
        q, k, values = tokens * self.heads * d, tokens * self.kv_heads * d, tokens * self.kv_heads * v
        out, log_sum = tokens * self.heads * v, 4 * tokens * self.heads
        if not backward:
            moved = size * (q + k + values + out) + log_sum
            return Work(products=2 * (d + v) * scores, exps=scores, bytes=moved)
        moved = size * (2 * (q + k + values) + 2 * out) + log_sum
        return Work(products=2 * (3 * d + 2 * v) * scores, exps=scores, bytes=moved)

    def published(self, *, backward: bool) -> Published | None:
        if self.head_dim not in _PUBLISHED:
            return None
        rate = _PUBLISHED[self.head_dim][backward]
        return Published(seconds=self.work(backward=backward).products / rate, source=_TOKAMAX)


WORKLOAD = AttentionWorkload
