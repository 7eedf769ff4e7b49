"""What attention sub-layers keep of the tokens before: keys and values."""

import dataclasses

import jax
from jaxtyping import Array, Float, Int

from mjx.sharding import shard


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Keys and values of the tokens so far, contiguous; slot i holds the row's token i.

    Rows of a batch may hold different numbers of tokens. Slots beyond a row's own count may hold
    leftovers: attention must not look there, and the next tokens overwrite them.
    """

    key: Float[Array, "batch slots kv_heads head_dim"]
    value: Float[Array, "batch slots kv_heads head_dim"]

    def append(
        self,
        key: Float[Array, "batch sequence kv_heads head_dim"],
        value: Float[Array, "batch sequence kv_heads head_dim"],
        offset: Int[Array, " batch"],
    ) -> "KVCache":
        """With these tokens written from each row's own `offset` on."""

        def write(cache: Array, new: Array) -> Array:
            place = jax.vmap(lambda row, tokens, at: jax.lax.dynamic_update_slice_in_dim(row, tokens, at, 0))
            return shard(place(cache, new.astype(cache.dtype), offset), "batch", None, "kv_heads", "head_dim")

        return KVCache(write(self.key, key), write(self.value, value))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MemoryCache:
    """Keys and values of a `Memory`, made once, with the prompt."""

    key: Float[Array, "batch memory kv_heads head_dim"]
    value: Float[Array, "batch memory kv_heads head_dim"]
    segment_ids: Int[Array, "batch memory"]
    """0 is padding."""
