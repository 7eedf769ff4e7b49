"""Variants of families that are given a picture and its text in each row."""

import dataclasses

import numpy as np

from families.variants.variant import Arrays, Variant
from mjx.batch import BatchArray, BatchArrays
from mjx.models.common.attention import AttentionConfig
from mjx.models.dual_encoder import DualEncoderConfig
from mjx.trees import Tree

END = 59
"""Stands at the end of every text."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedVariant(Variant):
    """Pictures as bright as the first token of their text says; the last row only fills the batch."""

    config: DualEncoderConfig
    sequence: int = 16

    def arrays(self) -> BatchArrays:
        vision = self.config.vision
        images = (self.rows, vision.channels, *vision.image_size)
        axes = ("batch", "channels", "height", "width")
        text = BatchArray(shape=(self.rows, self.sequence), dtype="int32", axes=("batch", "sequence"))
        return {
            "images": BatchArray(shape=images, dtype="float32", axes=axes),
            "tokens": text,
            "segment_ids": text,
            "loss_mask": BatchArray(shape=(self.rows,), dtype="float32", axes=("batch",)),
        }

    def batch(self, seed: int) -> Arrays:
        random, vision = np.random.RandomState(seed), self.config.vision
        first = random.permutation(self.rows)
        lengths = random.randint(4, self.sequence + 1, (self.rows, 1))
        place = np.arange(self.sequence)
        tokens = np.where(place == lengths - 1, END, (5 * first[:, None] + place) % END)
        real = place < lengths
        noise = random.randn(self.rows, vision.channels, *vision.image_size)
        mask = np.ones(self.rows, np.float32)
        mask[-1] = 0
        return {
            "images": (noise + first[:, None, None, None]).astype(np.float32),
            "tokens": (tokens * real).astype(np.int32),
            "segment_ids": real.astype(np.int32),
            "loss_mask": mask,
        }

    def padded(self, batch: Arrays) -> Arrays:
        random = np.random.RandomState(7)
        fills = batch["loss_mask"] == 0
        unread = (batch["segment_ids"] == 0) | fills[:, None]
        other = random.randint(0, self.config.text.vocab_size, unread.shape).astype(np.int32)
        pixels = random.randn(*batch["images"].shape).astype(np.float32)
        return batch | {
            "tokens": np.where(unread, other, batch["tokens"]),
            "images": np.where(fills[:, None, None, None], pixels, batch["images"]),
        }

    def flops_not_counted(self) -> float:
        """The pairs of causal attention that the mask hides."""
        hidden, sequence = 0.0, self.sequence
        for sublayer in self.config.text.pattern:
            if isinstance(mixer := sublayer.mixer, AttentionConfig) and mixer.causal:
                heads, _, head_dim = mixer.dims
                hidden += 4 * heads * head_dim * sequence / 2
        return self.rows * sequence * hidden

    def recipe(self) -> Tree:
        vision = self.config.vision
        data = {
            "kind": "captions",
            "sources": [{"path": "pictures.jsonl"}],
            "image": {"size": list(vision.image_size), "channels": vision.channels},
            "sequence_length": self.sequence,
            "tokenizer": "tokenizer",
        }
        return super().recipe() | {"data": data}
