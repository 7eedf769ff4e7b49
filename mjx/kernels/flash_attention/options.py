"""What a call of attention asks for besides q, k and v."""

from typing import NamedTuple

from jaxtyping import Array, Float, Int, Key

from mjx.kernels.flash_attention.relative_bias import RelativeBuckets


class AttentionOptions(NamedTuple):
    """As `flash_attention` explains them; checked, and the same for every implementation.

    An implementation is only given what its row of the table says that it can do; all else is as here.
    """

    scale: float
    causal: bool = True
    window: int | None = None
    query_segment_ids: Int[Array, "batch query"] | None = None
    key_segment_ids: Int[Array, "batch key"] | None = None
    query_offset: int | Int[Array, " batch"] = 0
    key_offset: int | Int[Array, " batch"] = 0
    soft_cap: float | None = None
    sinks: Float[Array, " heads"] | None = None
    relative_bias: Float[Array, "buckets heads"] | None = None
    relative_buckets: RelativeBuckets | None = None
    """Of `relative_bias`; None where there is none."""
    dropout_rate: float = 0.0
    """0 where there is no key."""
    dropout_key: Key[Array, ""] | None = None

    @property
    def distance(self) -> int | None:
        """Of the first query from the first key; None: it differs between the rows, or is not known yet."""
        if isinstance(self.query_offset, int) and isinstance(self.key_offset, int):
            return self.query_offset - self.key_offset
        return None
