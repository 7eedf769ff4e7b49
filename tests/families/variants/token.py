"""Variants of families that read tokens and predict the next one."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from families.variants.variant import Arrays, Prompt, Variant
from mjx.batch import BatchArrays
from mjx.data.gpt.config import token_batch
from mjx.kernels.grouped_matmul.fused import block_of
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.common.moe.fixed import cell_rows
from mjx.models.common.pattern import Lengths
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig
from mjx.models.common.token_model.language_model import LanguageModelConfig
from mjx.trees import Tree

PROMPT_LENGTHS = (3, 7)
PROMPT_WIDTH, PROMPT_TOKENS = 8, 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenVariant(Variant):
    """A language model from left to right."""

    config: LanguageModelConfig
    sequence: int = 32
    packs: bool = False
    """Whether the rows that it trains on hold several documents."""

    def arrays(self) -> BatchArrays:
        extras = ("positions", "segment_ids") if self.packs else ()
        return token_batch(self.rows, self.sequence, extras=extras)

    def batch(self, seed: int) -> Arrays:
        if self.packs:
            return self._documents(seed, self.rows)[0]
        random = np.random.RandomState(seed)
        shape = (self.rows, self.sequence)
        # Counting upwards from somewhere: learnable, so that the losses move.
        start = random.randint(0, self.config.vocab_size, (self.rows, 1))
        tokens = (start + np.arange(self.sequence + 1)).astype(np.int32) % self.config.vocab_size
        mask = (random.rand(*shape) < 0.8).astype(np.float32)
        mask[:, -1 - seed % 3 :] = 0
        mask[-1] = 0  # a row that only fills the batch
        return {"tokens": tokens[:, :-1], "labels": tokens[:, 1:], "loss_mask": mask}

    def padded(self, batch: Arrays) -> Arrays:
        counts = batch["loss_mask"] > 0
        read = (
            np.cumsum(counts[:, ::-1], axis=1)[:, ::-1] > 0
        )  # something that counts comes at it or behind it
        other = np.random.RandomState(7).randint(0, self.config.vocab_size, counts.shape).astype(np.int32)
        return batch | {
            "tokens": np.where(read, batch["tokens"], other),
            "labels": np.where(counts, batch["labels"], other),
        }

    def packed(self) -> tuple[Arrays, Arrays]:
        return self._documents(0, self.rows if self.packs else self.rows // 2)

    def prompt(self) -> Prompt:
        random = np.random.RandomState(3)
        shape = (len(PROMPT_LENGTHS), PROMPT_TOKENS)
        tokens = random.randint(0, self.config.vocab_size, shape).astype(np.int32)
        lengths = np.array(PROMPT_LENGTHS, np.int32)
        other = random.randint(0, self.config.vocab_size, (len(lengths), PROMPT_WIDTH))
        seen = np.arange(PROMPT_WIDTH) < lengths[:, None]
        given = np.where(seen, tokens[:, :PROMPT_WIDTH], other).astype(np.int32)
        return Prompt({"tokens": given}, lengths, tokens)

    def logits(self, model: Any, prompt: Prompt) -> Any:
        return model(prompt.tokens)

    def flops_not_counted(self) -> float:
        """The pairs of attention that the mask hides, what chunks are made by, the vocabulary's padding."""
        tokens, hidden = self.rows * self.sequence, 0.0
        for sublayer in itertools.chain.from_iterable(self.config.patterns.values()):
            mixer = getattr(sublayer.mixer, "attention", sublayer.mixer)  # of a block that has one
            if isinstance(mixer, AttentionConfig) and mixer.causal:
                (heads, _, head_dim), window = mixer.dims, mixer.window
                seen = self.sequence / 2
                if window is not None:  # a trapezium: the first rows see less than the window
                    seen = (window * window / 2 + (self.sequence - window) * window) / self.sequence
                hidden += 4 * heads * head_dim * (self.sequence - seen)
            elif isinstance(mixer, MoEConfig):  # a loop over blocks of rows, which is traced once
                one_row = mixer.mlp.flops_per_token(mixer.latent or self.config.hidden_size, Lengths(0))
                rows, way = block_of(tokens), mixer.dispatch
                if way.way == "fixed":  # cells, empty rows and all
                    rows = mixer.experts * cell_rows(tokens, mixer.top_k, mixer.experts, way.cell)
                hidden += (rows / tokens - mixer.top_k) * one_row
            elif isinstance(mixer, SSDConfig):  # the pairs of tokens within a chunk
                heads, head_dim, groups, state = mixer.sizes
                chunk = min(mixer.chunk_size, self.sequence)
                hidden += 2 * chunk * (groups * state + heads * head_dim)
            elif isinstance(mixer, SelectiveScanConfig):  # decays, which are traced as an outer product
                inner, _, state = mixer.sizes
                hidden += 2 * inner * state
        padding = self.config.padded_vocab_size - self.config.vocab_size
        return tokens * (hidden + 2 * self.config.hidden_size * padding)

    def recipe(self) -> Tree:
        data = {"corpus": "python-docs", "sequence_length": self.sequence}
        return super().recipe() | {"data": data | {"vocab_size": self.config.vocab_size}}

    def _documents(self, seed: int, rows: int) -> tuple[Arrays, Arrays]:
        """Two documents and some padding in every row; and each document in a row, padded behind."""
        random = np.random.RandomState(seed)
        names = ("tokens", "labels", "loss_mask", "positions", "segment_ids")
        packed = {name: np.zeros((rows, self.sequence), np.int32) for name in names}
        alone = {name: np.zeros((2 * rows, self.sequence), np.int32) for name in names[:3]}
        for row in range(rows):
            first = random.randint(3, self.sequence - 5)
            ends = (0, first, self.sequence - random.randint(0, 3))
            for document in range(2):
                length = ends[document + 1] - ends[document]
                text = (random.randint(0, self.config.vocab_size) + np.arange(length + 1)) % (
                    self.config.vocab_size
                )
                counted = random.rand(length) < 0.8
                here, there = slice(ends[document], ends[document + 1]), slice(0, length)
                arrays = {"tokens": text[:-1], "labels": text[1:], "loss_mask": counted}
                for name, array in arrays.items():
                    packed[name][row, here] = array
                    alone[name][2 * row + document, there] = array
                packed["positions"][row, here] = np.arange(length)
                packed["segment_ids"][row, here] = document + 1
        for batch in (packed, alone):
            batch["loss_mask"] = batch["loss_mask"].astype(np.float32)
        return packed, alone
