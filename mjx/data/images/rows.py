"""Rows of one picture each, in their order, with another in the place of one that cannot be read."""

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from mjx.data.dataset import Batch, Dataset
from mjx.data.images.config import PicturesConfig
from mjx.data.images.prepare import AugmentationConfig
from mjx.data.images.sources import StoredPictures
from mjx.data.images.splits import Broken
from mjx.data.pairs.order import row_order
from mjx.errors import InputError


class PictureRows(Dataset):
    """Pictures in an order drawn anew in every epoch. In training the next one that can be read stands for
    one that cannot; in a set that is read once, such a row has no weight."""

    def __init__(
        self,
        pictures: StoredPictures,
        rows: Int64[np.ndarray, "rows"],
        num_samples: int | None,
        *,
        config: PicturesConfig,
        augment: AugmentationConfig | None,
        broken: Broken,
        number: int,
    ) -> None:
        """Args:
        pictures: Of the source.
        rows: Those of the split.
        num_samples: So many, over as many epochs as it takes; None: every picture once.
        config: How they are made ready.
        augment: By which chance.
        broken: Where pictures are counted that cannot be read.
        number: Of the source among those of the blend.
        """
        self.pictures, self.rows = pictures, rows
        self.config, self.augment, self.broken, self.number = config, augment, broken, number
        self.replaces = num_samples is not None
        self.order = row_order(np.zeros(len(rows), np.int64), num_samples, config.seed)

    def __len__(self) -> int:
        return len(self.order)

    def images(
        self, samples: Int[np.ndarray, "batch"]
    ) -> tuple[
        Float[np.ndarray, "batch channels height width"],
        Int64[np.ndarray, "batch"],
        Float[np.ndarray, "batch"],
    ]:
        """What the model sees, which of `rows` that is, and 1 where it has a weight.

        Raises:
            InputError: no picture can be read.
        """
        shape = (len(samples), *self.config.image.shape)
        images, found = np.zeros(shape, np.float32), np.zeros(len(samples), np.int64)
        mask = np.ones(len(samples), np.float32)
        for row, sample in enumerate(np.asarray(samples).tolist()):
            found[row] = first = int(self.order[sample])
            for next_one in range(len(self.rows) if self.replaces else 1):
                found[row] = (first + next_one) % len(self.rows)
                image = self._read(int(found[row]), sample)
                if image is not None:
                    images[row] = image
                    break
            else:
                mask[row] = 0.0
        if self.replaces and not mask.all():
            raise InputError(f"{self.pictures.path}: none of {len(self.rows)} pictures can be read.")
        return images, found, mask

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0

    def _read(self, row: int, sample: int) -> np.ndarray | None:
        """None: it cannot be read."""
        seed = (self.config.seed, self.number, sample)
        return self.broken.read(self.pictures, int(self.rows[row]), self.config.image, self.augment, seed)
