"""What the data are told of a model that sees (`Sight`)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mjx.batch import BatchArray, BatchArrays
from mjx.models.common.pictures import GRID
from mjx.models.common.pictures.sight import Picture
from mjx.models.multimodal.config import MultimodalConfig
from mjx.models.multimodal.layout import features_of
from mjx.models.multimodal.rows import seen_arrays


@dataclasses.dataclass(frozen=True)
class MultimodalSight:
    """Of a `MultimodalConfig`."""

    config: MultimodalConfig

    @property
    def image_token(self) -> int:
        """`model.image_token`."""
        return self.config.image_token

    def places(self, height: int, width: int) -> int:
        """Its features, of which several patches may make one."""
        return features_of(self.config, self._blank(height, width))

    def patches(self, height: int, width: int) -> int:
        """Its patches and learned tokens, filled up to whole features."""
        config = self.config
        patch = config.vision.patch_size
        tokens = config.vision.learned_tokens + (height // patch) * (width // patch)
        return -(-tokens // config.merged) * config.merged

    def arrays(self, rows: int, patches: int) -> BatchArrays:
        """`SEEN` and `image_at`; of a model with newlines their places too."""
        shape, axes = (rows, patches), ("batch", "sequence")
        pixels = (self.config.vision.patch_features,)
        lines = self.config.newlines(patches) if self.config.pinpoints else None
        newlines = (
            {}
            if lines is None
            else {"newline_at": BatchArray(shape=(rows, lines), dtype="int32", axes=("batch", "made"))}
        )
        return newlines | {
            "patches": BatchArray(shape=shape + pixels, dtype="float32", axes=(*axes, "pixels")),
            "grid": BatchArray(shape=(*shape, GRID), dtype="int32", axes=(*axes, "grid")),
            "patch_segment_ids": BatchArray(shape=shape, dtype="int32", axes=axes),
            "image_at": BatchArray(
                shape=(rows, patches // self.config.merged), dtype="int32", axes=("batch", "made")
            ),
        }

    def seen(
        self, tokens: Int[np.ndarray, "batch sequence"], pictures: Sequence[Sequence[Picture]], patches: int
    ) -> dict[str, np.ndarray]:
        """As `seen_arrays`."""
        return seen_arrays(self.config, tokens, pictures, patches)

    def _blank(self, height: int, width: int) -> Picture:
        """A picture of this size that takes no memory."""
        return np.broadcast_to(np.float32(0), (self.config.vision.channels, height, width))
