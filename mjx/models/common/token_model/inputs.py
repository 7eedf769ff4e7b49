"""What a language model reads, and what it is held against."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from mjx.models.common.context import Decoding, Memory
from mjx.models.common.split import in_order


class Inputs(NamedTuple):
    """What enters a language model: token ids, and embeddings made elsewhere (of images, sounds)."""

    tokens: Int[Array, "batch sequence"]
    positions: Int[Array, "#batch sequence *axes"] | None = None
    """Of the tokens, along several axes where rotation has sections of them; None: counted from the row's
    start."""
    segment_ids: Int[Array, "batch sequence"] | None = None
    token_types: Int[Array, "batch sequence"] | None = None
    """None: all are of the first."""
    embeddings: Float[Array, "batch made embed"] | None = None
    """Stand in the place of tokens' embeddings."""
    at: Int[Array, "batch made"] | None = None
    """Which tokens' place each of `embeddings` takes; beyond the row: none's."""
    memory: Memory | None = None
    decoding: Decoding | None = None
    counted: Float[Array, "batch sequence"] | None = None
    """1 for tokens that count in the statistics of layers; None: none are asked for."""
    training: bool = False
    """Whether layers do what only training does."""

    def in_order(self, order: Int[np.ndarray, " sequence"] | None) -> "Inputs":
        """With the tokens where `token_order` wants them."""
        names = ("tokens", "positions", "segment_ids", "token_types", "counted")
        arrays = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return self._replace(**{name: in_order(order, array) for name, array in arrays.items()})


class Targets(NamedTuple):
    """What leaves a language model is held against."""

    labels: Int[Array, "batch sequence"]
    mask: Float[Array, "batch sequence"]
    """1 for tokens that count."""

    def in_order(self, order: Int[np.ndarray, " sequence"] | None) -> "Targets":
        """As `Inputs.in_order`."""
        return Targets(*(in_order(order, array) for array in self))
