"""Variants of language models that look at texts which are retrieved for their chunks."""

import dataclasses
from typing import Any

import numpy as np

from families.variants.token import PROMPT_TOKENS, TokenVariant
from families.variants.variant import Arrays, NotApplicableError, Prompt
from mjx.batch import BatchArray, BatchArrays
from mjx.models.retro import RetroConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievingVariant(TokenVariant):
    """Neighbours count upwards, too, and some chunks have fewer than others."""

    config: RetroConfig

    def arrays(self) -> BatchArrays:
        retrieved = BatchArray(
            shape=self._neighbours(self.rows, self.sequence),
            dtype="int32",
            axes=("batch", "chunks", "neighbours", "retrieved"),
        )
        return super().arrays() | {"retrieved": retrieved}

    def batch(self, seed: int) -> Arrays:
        batch = super().batch(seed)
        return batch | {"retrieved": self._retrieved(seed, self.rows, self.sequence)}

    def padded(self, batch: Arrays) -> Arrays:
        """The neighbours of the last row, which counts for nothing."""
        padded = super().padded(batch)
        other = batch["retrieved"].copy()
        other[-1] = np.random.RandomState(8).randint(0, self.config.vocab_size, other[-1].shape)
        return padded | {"retrieved": other}

    def packed(self) -> tuple[Arrays, Arrays]:
        raise NotApplicableError("a row is one text, whose chunks have neighbours")

    def prompt(self) -> Prompt:
        prompt = super().prompt()
        retrieved = self._retrieved(5, len(prompt.lengths), PROMPT_TOKENS)
        return prompt._replace(batch={**prompt.batch, "retrieved": retrieved})

    def logits(self, model: Any, prompt: Prompt) -> Any:
        return model(prompt.tokens, prompt.batch["retrieved"])

    def flops_not_counted(self) -> float:
        """And what nothing is made of: what tokens in front of the first look would have looked up."""
        config = self.config
        heads = config.chunked_attention.num_heads * config.chunked_attention.head_dim
        first = (self.sequence - 1) % config.chunk_length
        looks = 2 * first * heads * config.hidden_size * len(config.looking)
        return super().flops_not_counted() - self.rows * looks

    def _neighbours(self, rows: int, sequence: int) -> tuple[int, ...]:
        config = self.config
        return (rows, -(-sequence // config.chunk_length), config.neighbours, config.retrieved_length)

    def _retrieved(self, seed: int, rows: int, sequence: int) -> np.ndarray:
        random = np.random.RandomState(100 + seed)
        shape = self._neighbours(rows, sequence)
        start = random.randint(0, self.config.vocab_size, (*shape[:3], 1))
        found = (start + np.arange(shape[3])).astype(np.int32) % self.config.vocab_size
        missing = random.rand(*shape[:3]) < 0.2
        short = random.randint(1, shape[3] + 1, shape[:3])
        return np.where(missing[..., None] | (np.arange(shape[3]) >= short[..., None]), -1, found)
