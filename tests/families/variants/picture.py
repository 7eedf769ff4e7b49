"""Variants of families that read a picture a row, and tell what it is."""

import dataclasses

import numpy as np

from families.variants.variant import Arrays, Variant
from mjx.batch import BatchArray, BatchArrays
from mjx.models.common.pictures import GRID, patches_of, whole_grid
from mjx.models.vision import VisionConfig
from mjx.trees import Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureVariant(Variant):
    """Pictures as bright as their label says; the last only fills the batch."""

    config: VisionConfig
    padded_to: int | None = None
    """Tokens of a row that says where its patches are, and which of them are padding; None: rows are whole
    pictures."""

    def arrays(self) -> BatchArrays:
        length = self.padded_to or self.config.sequence
        shape, axes = (self.rows, length), ("batch", "sequence")
        arrays = {
            "patches": BatchArray(
                shape=(*shape, self.config.patch_features), dtype="float32", axes=(*axes, "pixels")
            ),
            "labels": BatchArray(shape=shape[:1], dtype="int32", axes=axes[:1]),
            "loss_mask": BatchArray(shape=shape[:1], dtype="float32", axes=axes[:1]),
        }
        if self.padded_to is not None:
            arrays["grid"] = BatchArray(shape=(*shape, GRID), dtype="int32", axes=(*axes, "grid"))
            arrays["segment_ids"] = BatchArray(shape=shape, dtype="int32", axes=axes)
        return arrays

    def batch(self, seed: int) -> Arrays:
        random, config = np.random.RandomState(seed), self.config
        labels = random.randint(0, config.classes or 1, self.rows).astype(np.int32)
        noise = random.randn(self.rows, config.channels, *config.image_size)
        patches = patches_of(noise + labels[:, None, None, None], config.patch_size)
        learned = config.learned_tokens
        behind = (self.padded_to or config.sequence) - config.sequence
        patches = np.pad(patches, ((0, 0), (learned, behind), (0, 0))).astype(np.float32)
        mask = np.ones(self.rows, np.float32)
        mask[-1] = 0
        batch = {"patches": patches, "labels": labels, "loss_mask": mask}
        if self.padded_to is not None:
            grid = np.pad(whole_grid(*config.grid, learned), ((0, 0), (0, behind), (0, 0)))
            batch["grid"] = np.repeat(grid, self.rows, axis=0)
            real = np.arange(self.padded_to) < config.sequence
            batch["segment_ids"] = np.repeat(real[None], self.rows, axis=0).astype(np.int32)
        return batch

    def padded(self, batch: Arrays) -> Arrays:
        random = np.random.RandomState(7)
        unread = np.zeros(batch["patches"].shape[:2], bool)
        unread[:, : self.config.learned_tokens] = True
        unread[-1] = True
        if "segment_ids" in batch:
            unread |= batch["segment_ids"] == 0
        other = random.randn(*batch["patches"].shape).astype(np.float32)
        return batch | {"patches": np.where(unread[..., None], other, batch["patches"])}

    def flops_not_counted(self) -> float:
        """What the positions of patches are made of, where batches say where these are."""
        if self.padded_to is None or self.config.position_grid is None:
            return 0.0
        rows, columns = self.config.position_grid
        return self.rows * self.padded_to * 2 * rows * columns * self.config.hidden_size

    def recipe(self) -> Tree:
        data = {"kind": "images", "sources": [{"path": "pictures"}], "classes": list("abc")}
        image = {"size": list(self.config.image_size), "channels": self.config.channels}
        return super().recipe() | {"data": data | {"image": image}}
