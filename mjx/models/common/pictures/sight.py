"""What a model in whose texts pictures stand says of them, without its weights."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from mjx.batch import BatchArrays

Picture = Float[np.ndarray, "channels height width"]


class Sight(Protocol):
    """How pictures become arrays beside rows of text, and which places they take there."""

    @property
    def image_token(self) -> int:
        """The id that stands where features take a token's place."""
        ...

    def places(self, height: int, width: int) -> int:
        """How many tokens a picture of so many pixels takes in a text."""
        ...

    def patches(self, height: int, width: int) -> int:
        """How many tokens of the encoder's row it takes."""
        ...

    def arrays(self, rows: int, sequence: int, patches: int) -> BatchArrays:
        """What a batch has besides its text, or otherwise than a batch of text, with room for so many tokens
        in the encoder's rows."""
        ...

    def seen(
        self,
        tokens: Int[np.ndarray, "batch sequence"],
        segment_ids: Int[np.ndarray, "batch sequence"],
        pictures: Sequence[Sequence[Picture]],
        patches: int | None,
    ) -> dict[str, np.ndarray]:
        """These arrays, of rows of text that have the image token in the places of their pictures.

        Args:
            tokens: Of the rows.
            segment_ids: The samples of a row, from 1; 0 is padding.
            pictures: Of each row, in the order of its text.
            patches: As for `arrays`; None: as many as the fullest row needs.
        """
        ...
