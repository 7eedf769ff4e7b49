"""Grouped matmul as models call it, and the work in it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mjx.kernels.grouped_matmul import configurations, grouped_matmul, shipped, triton
from mjx.kernels.workload import Published, Work

_TOKAMAX = "tokamax's Mosaic kernel, by its tuning cache"
_PUBLISHED = {(393216, 128, 2048, 768): (2.737e-3, 15.09e-3), (393216, 128, 768, 2048): (3.142e-3, 13.96e-3)}
"""(rows, groups, inner, outer) → seconds on one H100, forward and backward, bfloat16: medians of that,
backward the sum of both gradients."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupedMatmulWorkload:
    """One of the products of a layer of experts, each of which has about the same number of rows."""

    name: str
    rows: int
    """Tokens, each as often as it has experts."""
    groups: int
    inner: int
    outer: int
    dtype: str = "bfloat16"

    def sizes(self) -> np.ndarray:
        """As a router makes them that knows no favourites: no two alike, and no multiples of a block."""
        draws = np.random.default_rng(0).multinomial(self.rows, np.full(self.groups, 1 / self.groups))
        return draws.astype(np.int32)

    def arguments(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "rows": jax.ShapeDtypeStruct((self.rows, self.inner), self.dtype),
            "kernels": jax.ShapeDtypeStruct((self.groups, self.inner, self.outer), self.dtype),
        }

    def function(self, implementation: str, config: Any = None) -> Callable[..., jax.Array]:
        sizes = jnp.asarray(self.sizes())

        def forward(rows, kernels):
            if config is not None:
                return triton.grouped_matmul(rows, kernels, sizes, config=config)
            return grouped_matmul(rows, kernels, sizes, implementation=implementation)

        return forward

    def configs(self, implementation: str, compute_capability: float) -> dict[str, Any]:
        if implementation != "triton":
            return {}
        found = configurations.configs(self.dtype, compute_capability)
        return {shipped.label(self.dtype, number): config for number, config in enumerate(found)}

    def work(self, *, backward: bool) -> Work:
        """A product forward and two backward, each of which reads two of the three arrays and makes one."""
        product = 2 * self.rows * self.inner * self.outer
        given = self.rows * self.inner + self.groups * self.inner * self.outer
        out, size = self.rows * self.outer, jnp.dtype(self.dtype).itemsize
        if backward:
            return Work(products=2 * product, exps=0, bytes=size * (2 * given + out))
        return Work(products=product, exps=0, bytes=size * (given + out))

    def published(self, *, backward: bool) -> Published | None:
        seconds = _PUBLISHED.get((self.rows, self.groups, self.inner, self.outer))
        return None if seconds is None else Published(seconds=seconds[backward], source=_TOKAMAX)


WORKLOAD = GroupedMatmulWorkload
