"""What the data are told of a model that sees (`Sight`)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mjx.batch import BatchArray, BatchArrays
from mjx.models.common.pictures import GRID
from mjx.models.common.pictures.sight import Picture
from mjx.models.multimodal.config import MultimodalConfig
from mjx.models.multimodal.frames import Laid, frame_arrays, frames_of, laid_row
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

    def arrays(self, rows: int, sequence: int, patches: int) -> BatchArrays:
        """`SEEN` and `image_at`; newlines' places, and positions along several axes, of a model that has
        them."""
        shape, axes = (rows, patches), ("batch", "sequence")
        pixels = (self.config.vision.patch_features,)
        others: dict[str, BatchArray] = {}
        if self.config.pinpoints:
            lines = (rows, self.config.newlines(patches))
            others["newline_at"] = BatchArray(shape=lines, dtype="int32", axes=("batch", "made"))
        if self.config.axes > 1:
            others["positions"] = BatchArray(
                shape=(rows, sequence, self.config.axes), dtype="int32", axes=("batch", "sequence", "axes")
            )
        return others | {
            "patches": BatchArray(shape=shape + pixels, dtype="float32", axes=(*axes, "pixels")),
            "grid": BatchArray(shape=(*shape, GRID), dtype="int32", axes=(*axes, "grid")),
            "patch_segment_ids": BatchArray(shape=shape, dtype="int32", axes=axes),
            "image_at": BatchArray(
                shape=(rows, patches // self.config.merged), dtype="int32", axes=("batch", "made")
            ),
        }

    def seen(
        self,
        tokens: Int[np.ndarray, "batch sequence"],
        segment_ids: Int[np.ndarray, "batch sequence"],
        pictures: Sequence[Sequence[Picture]],
        patches: int | None,
    ) -> dict[str, np.ndarray]:
        """As `seen_arrays`; where positions have several axes, with these, which begin anew in every
        sample."""
        config = self.config
        if config.axes == 1:
            return seen_arrays(config, tokens, pictures, patches)
        rows = []
        for ids, segments, of_row in zip(tokens, segment_ids, pictures, strict=True):
            frames, none = (frames_of(config, picture) for picture in of_row), iter(())
            samples = [
                laid_row(config, ids, segments == number, frames, none)
                for number in range(1, int(segments.max()) + 1)
            ]
            rows.append(
                Laid(
                    [one for laid in samples for one in laid.frames],
                    np.concatenate([np.zeros(0, np.int32), *(laid.places for laid in samples)]),
                    sum((laid.positions for laid in samples), np.zeros((len(ids), config.axes), np.int32)),
                )
            )
        positions = np.stack([row.positions for row in rows])
        return {"positions": positions, **frame_arrays(config, rows, tokens.shape[1], patches)}

    def _blank(self, height: int, width: int) -> Picture:
        """A picture of this size that takes no memory."""
        return np.broadcast_to(np.float32(0), (self.config.vision.channels, height, width))
