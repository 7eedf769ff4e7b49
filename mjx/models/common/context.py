"""What every sub-layer of a stack may read besides the residual stream."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
from jaxtyping import Array, Int, Key

from mjx.models.common.rope import rotary_tables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """The tokens' places, and the dropout key of the sub-layer that reads it."""

    segment_ids: Int[Array, "batch sequence"] | None = None
    """Documents of a packed row, from 1; 0 is padding. None: each row is one document."""
    rotary: tuple[tuple[Array, Array], ...] = ()
    """Cosine and sine tables, one pair per distinct `RoPEConfig` (`rotary_keys`)."""
    cache_offset: Int[Array, " batch"] | None = None
    """While decoding: how many tokens of each row the caches already hold."""
    dropout_key: Key[Array, ""] | None = None
    """None: no dropout."""
    rotary_keys: tuple[Any, ...] = dataclasses.field(default=(), metadata={"static": True})
    """The (`RoPEConfig`, head_dim) of each table."""

    def with_rotary(self, sublayers: Iterable[Any], positions: Int[Array, "#batch sequence"]) -> "Context":
        """With the tables that these sub-layers' mixers ask for, each made once."""
        mixers = (sublayer.mixer for sublayer in sublayers)
        keys = tuple(dict.fromkeys((m.rope, m.head_dim) for m in mixers if getattr(m, "rope", None)))
        tables = tuple(rotary_tables(config, head_dim, positions) for config, head_dim in keys)
        return dataclasses.replace(self, rotary=tables, rotary_keys=keys)

    def rotary_table(self, config: Any, head_dim: int) -> tuple[Array, Array]:
        """Cosine and sine for a layer's own configuration."""
        return self.rotary[self.rotary_keys.index((config, head_dim))]

    def fold(self, index: int | Int[Array, ""]) -> "Context":
        """The context of one sub-layer: its own dropout key."""
        if self.dropout_key is None:
            return self
        return dataclasses.replace(self, dropout_key=jax.random.fold_in(self.dropout_key, index))

    def split_dropout(self) -> tuple["Context", Key[Array, ""] | None]:
        """The context of a sub-layer's mixer, and the key for the dropout on its output."""
        if self.dropout_key is None:
            return self, None
        inner, outer = jax.random.split(self.dropout_key)
        return dataclasses.replace(self, dropout_key=inner), outer
