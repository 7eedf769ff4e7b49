"""Variants of language models that see: two pictures in every row of text."""

import dataclasses
from typing import Any

import numpy as np

from families.variants.variant import Arrays, Prompt, Variant
from mjx.batch import BatchArrays, token_batch
from mjx.models.common.pictures import Tiles, View
from mjx.models.multimodal import MultimodalConfig
from mjx.models.multimodal.config import PLACES, SEEN
from mjx.models.multimodal.layout import features_of, tiles_of
from mjx.models.multimodal.rows import seen_arrays
from mjx.trees import Tree

PROMPT_WIDTH, PROMPT_TOKENS = 16, 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeeingVariant(Variant):
    """Text that counts upwards, from what its pictures are as bright as."""

    config: MultimodalConfig
    sequence: int = 32
    patches: int = 16
    """Tokens of a row of the encoder."""
    size: tuple[int, int] | None = None
    """Height and width of pictures that are seen in tiles; None: they are seen at once."""
    prompt_lengths: tuple[int, int] = (12, 15)

    def arrays(self) -> BatchArrays:
        text = token_batch(self.rows, self.sequence, ("positions", "segment_ids"))
        return text | dict(self.config.sight.arrays(self.rows, self.sequence, self.patches))

    def batch(self, seed: int) -> Arrays:
        batch = self._documents(seed, self.rows, 2)
        batch["loss_mask"][-1] = 0  # a row that only fills the batch
        return batch

    def packed(self) -> tuple[Arrays, Arrays]:
        packed = self._documents(0, self.rows // 2, 2)
        return packed, self._documents(0, self.rows // 2, 1)

    def padded(self, batch: Arrays) -> Arrays:
        random, counts = np.random.RandomState(7), batch["loss_mask"] > 0
        vocabulary = self.config.language.vocab_size
        other = random.randint(0, vocabulary, counts.shape).astype(np.int32)
        seen = batch["tokens"] == self.config.image_token
        pixels = random.randn(*batch["patches"].shape).astype(np.float32)
        unread = batch["patch_segment_ids"][..., None] == 0
        return batch | {
            "tokens": np.where(seen | (batch["segment_ids"] == 0), other, batch["tokens"]),
            "labels": np.where(counts, batch["labels"], other),
            "patches": np.where(unread, pixels, batch["patches"]),
        }

    def prompt(self) -> Prompt:
        number = len(self.prompt_lengths)
        batch = self._documents(3, number, 1)
        alone = {name: array[:number] for name, array in batch.items()}
        random = np.random.RandomState(4)
        shape = (number, PROMPT_TOKENS)
        tokens = random.randint(0, self.config.language.vocab_size - 1, shape).astype(np.int32)
        lengths = np.array(self.prompt_lengths, np.int32)
        seen = np.arange(PROMPT_WIDTH) < lengths[:, None]
        other = random.randint(0, self.config.language.vocab_size, seen.shape)
        given = np.where(seen, tokens[:, :PROMPT_WIDTH], other).astype(np.int32)
        pictures = {name: alone[name] for name in (*SEEN, *PLACES) if name in alone}
        if self.config.axes > 1:  # text goes on behind all that is in front of it
            places = np.minimum(np.arange(PROMPT_TOKENS), lengths[:, None] - 1)
            positions = np.take_along_axis(alone["positions"], places[..., None], axis=1)
            behind = np.maximum(np.arange(PROMPT_TOKENS) - lengths[:, None] + 1, 0)[..., None]
            highest = positions.max(axis=(1, 2), keepdims=True)
            pictures["positions"] = np.where(behind > 0, highest + behind, positions).astype(np.int32)
        return Prompt({"tokens": given, **pictures}, lengths, tokens)

    def logits(self, model: Any, prompt: Prompt) -> Any:
        names = (*SEEN, *PLACES, "positions")
        return model(prompt.tokens, **{name: prompt.batch[name] for name in names if name in prompt.batch})

    def flops_not_counted(self) -> float:
        """The pairs of causal attention that the mask hides, the vocabulary's padding, and what the positions
        of patches are made of."""
        config, tokens = self.config.language, self.rows * self.sequence
        heads, _, head_dim = config.attention.resolve(config.hidden_size).dims
        hidden = config.num_layers * 4 * heads * head_dim * self.sequence / 2
        padding = 2 * config.hidden_size * (config.padded_vocab_size - config.vocab_size)
        if self.config.vision.position_grid is None:
            return tokens * (hidden + padding)
        rows, columns = self.config.vision.position_grid
        positions = self.rows * self.patches * 2 * rows * columns * self.config.vision.hidden_size
        return tokens * (hidden + padding) + positions

    def recipe(self) -> Tree:
        vision = self.config.vision
        data = {"kind": "image_text", "sources": [{"path": "pictures"}], "tokenizer": "byte", "pictures": 2}
        image = {"size": list(vision.image_size), "channels": vision.channels}
        return super().recipe() | {"data": data | {"image": image, "sequence_length": self.sequence}}

    def _documents(self, seed: int, rows: int, together: int) -> Arrays:
        """Two documents for each of so many rows, a picture in each; so many `together` in a row."""
        random, config = np.random.RandomState(seed), self.config
        vocabulary = config.language.vocab_size
        number, half = 2 * rows, self.sequence // 2
        starts = random.randint(0, vocabulary, number)
        views = [self._view(random, start / 20) for start in starts]
        marks = features_of(config, views[0])
        lengths, at = random.randint(marks + 6, half + 1, number), random.randint(1, 4, number)
        counted = random.rand(number, half) < 0.8

        shape = (number // together, self.sequence)
        batch: Arrays = {
            n: np.zeros(shape, np.int32) for n in ("tokens", "labels", "positions", "segment_ids")
        }
        batch["loss_mask"] = np.zeros(shape, np.float32)
        for document in range(number):
            row, place = divmod(document, together)
            begin, length = place * half, int(lengths[document])
            text = (starts[document] + np.arange(length + 1)) % (vocabulary - 1)
            first = int(at[document])
            text[first : first + marks] = config.image_token
            here = slice(begin, begin + length)
            batch["tokens"][row, here], batch["labels"][row, here] = text[:-1], text[1:]
            batch["loss_mask"][row, here] = counted[document, :length] & (text[1:] != config.image_token)
            batch["positions"][row, here] = np.arange(length)
            batch["segment_ids"][row, here] = place + 1
        pictures = [views[row * together : (row + 1) * together] for row in range(shape[0])]
        width = self.patches * together // 2
        if config.axes > 1:
            return batch | config.sight.seen(batch["tokens"], batch["segment_ids"], pictures, width)
        return batch | seen_arrays(config, batch["tokens"], pictures, width)

    def _view(self, random: np.random.RandomState, brightness: float) -> View:
        vision = self.config.vision
        shape = (vision.channels, *vision.image_size)
        if self.size is None:
            return random.randn(*shape) + brightness
        return Tiles(random.randn(tiles_of(self.config, self.size), *shape) + brightness, self.size)
