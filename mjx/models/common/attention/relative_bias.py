"""A learned bias on attention's scores by the distance of key and query, one table for all layers."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx.kernels.flash_attention.relative_bias import RelativeBuckets
from mjx.models.common.context import Context
from mjx.models.common.parameter import parameter


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativeBiasConfig:
    """How distances share the rows of the table (Raffel et al. 2020, section 2.1).

    Unless attention is causal, half of the rows are for keys behind the query.
    """

    buckets: int = 32
    """Rows of the table; of those of a side, half hold one distance each, from 0 on, the others more and
    more."""
    max_distance: int = 128
    """From here on, all distances share the last row."""


@dataclasses.dataclass(frozen=True)
class RelativeTable:
    """The table of all layers of a stack that share it."""

    config: RelativeBiasConfig
    heads: int
    two_sided: bool

    @property
    def name(self) -> str:
        return "relative_bias"

    @property
    def buckets(self) -> RelativeBuckets:
        """Which distances share a row."""
        return RelativeBuckets(self.two_sided, self.config.max_distance)

    @property
    def refusal(self) -> str | None:
        """Why there cannot be such a table; None where there can."""
        return self.buckets.refusal(self.config.buckets)

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> "RelativeBias":
        return RelativeBias(self.config.buckets, self.heads, std=std, rngs=rngs)

    def make(self, module: "RelativeBias", context: Context) -> Float[Array, "buckets heads"]:
        return module.weight[...]


class RelativeBias(nnx.Module):
    """A bias for each bucket of distances and each head."""

    def __init__(self, buckets: int, heads: int, *, std: float, rngs: nnx.Rngs):
        weight = std * jax.random.normal(rngs.params(), (buckets, heads), jnp.float32)
        self.weight = parameter(weight, "buckets", "heads")
