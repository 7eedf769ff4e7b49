"""Variants of families that read whole rows, and tell what is hidden in them or what they are."""

import dataclasses

import numpy as np

from families.variants.variant import Arrays, NotApplicableError, Variant
from mjx.batch import BatchArray, BatchArrays
from mjx.data.gpt.config import token_batch
from mjx.data.pairs.contrasted import ContrastedConfig
from mjx.data.text import SourceConfig
from mjx.models.bert import BertConfig
from mjx.models.common.attention import AttentionConfig
from mjx.trees import Tree

SOURCES = (SourceConfig(path="rows.jsonl"),)
MASK = 3
"""Stands for hidden tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderVariant(Variant):
    """An encoder; its rows are texts, or pairs, of several lengths, and the last only fills the batch."""

    config: BertConfig
    sequence: int = 32
    packs: bool = False
    """Whether the rows that it trains on hold several documents."""

    def arrays(self) -> BatchArrays:
        if self.config.contrastive is not None:
            return ContrastedConfig(sources=SOURCES, vocab_size=61, sequence_length=self.sequence).arrays(
                self.rows
            )
        types = ("token_types",) if self.config.token_types else ()
        positions = ("positions",) if self.packs else ()
        arrays = token_batch(self.rows, self.sequence, extras=(*positions, "segment_ids", *types))
        of_rows = {"is_random": "int32"} if self.config.sentence_head else {}
        if self.config.classes is not None:
            of_rows = {"labels": "float32" if self.config.classes == 1 else "int32", "loss_mask": "float32"}
        return arrays | {
            name: BatchArray(shape=(self.rows,), dtype=dtype, axes=("batch",))
            for name, dtype in of_rows.items()
        }

    def batch(self, seed: int) -> Arrays:
        if self.packs:
            return self._documents(seed, self.rows)[0]
        random, shape = np.random.RandomState(seed), (self.rows, self.sequence)
        lengths = random.randint(12, self.sequence + 1, (self.rows, 1))
        place = np.arange(self.sequence)
        real = place < lengths
        text = self._text(random, self.rows, self.sequence)
        second = (place >= lengths // 2) & real
        # Those of another text go on by twos: learnable.
        other = random.randint(0, 2, (self.rows, 1))
        text = np.where(second & (other > 0), (text + place) % self.config.vocab_size, text)
        arrays = {"segment_ids": real.astype(np.int32), "token_types": second.astype(np.int32)}
        if not self.config.token_types:
            del arrays["token_types"]
        if self.config.classes is not None:
            mask = np.ones(self.rows, np.float32)
            mask[-1] = 0
            labels = text[:, 1] * self.config.classes // self.config.vocab_size
            dtype = np.float32 if self.config.classes == 1 else np.int32
            return {"tokens": text * real, "labels": labels.astype(dtype), "loss_mask": mask, **arrays}
        if self.config.contrastive is not None:
            mask = np.ones(self.rows, np.float32)
            mask[-1] = 0
            other = np.where(real, self._text(random, self.rows, self.sequence), 0)
            near = np.where(place % 3 == 0, other, text) * real  # much of the first
            segments = real.astype(np.int32)
            pair = {"tokens": text * real, "other_tokens": near.astype(np.int32)}
            return {**pair, "segment_ids": segments, "other_segment_ids": segments, "loss_mask": mask}
        hidden = (random.rand(*shape) < 0.3) & real
        hidden[-1] = False
        if self.config.sentence_head:
            arrays["is_random"] = other[:, 0].astype(np.int32)
            arrays["is_random"][-1] = -1
        tokens = np.where(hidden, MASK, text) * real
        return {
            "tokens": tokens.astype(np.int32),
            "labels": np.where(hidden, text, -1).astype(np.int32),
            "loss_mask": hidden.astype(np.float32),
            **arrays,
        }

    def padded(self, batch: Arrays) -> Arrays:
        random, counts = np.random.RandomState(7), np.asarray(batch["loss_mask"] > 0)
        fills = ~counts.reshape(len(counts), -1).any(axis=1)
        unread = (batch["segment_ids"] == 0) | fills[:, None]
        other = random.randint(0, self.config.vocab_size, unread.shape).astype(np.int32)
        changed = {"tokens": np.where(unread, other, batch["tokens"])}
        if self.config.contrastive is not None:
            return batch | changed | {"other_tokens": np.where(unread, other, batch["other_tokens"])}
        if "token_types" in batch:
            changed["token_types"] = np.where(unread, 1 - batch["token_types"], batch["token_types"])
        labels = other if counts.ndim > 1 else other[:, 0] % (self.config.classes or 1)
        changed["labels"] = np.where(counts, batch["labels"], labels).astype(batch["labels"].dtype)
        return batch | changed

    def packed(self) -> tuple[Arrays, Arrays]:
        if not self.packs:
            raise NotApplicableError("its rows are not packed")
        return self._documents(0, self.rows)

    def flops_not_counted(self) -> float:
        """Pairs of attention beyond a window, and the vocabulary's padding."""
        tokens, hidden = self.rows * self.sequence, 0.0
        for sublayer in self.config.pattern:
            mixer = sublayer.mixer
            if isinstance(mixer, AttentionConfig) and mixer.window is not None:
                heads, _, head_dim = mixer.dims
                hidden += 4 * heads * head_dim * (self.sequence - min(2 * mixer.window, self.sequence))
        padding = self.config.padded_vocab_size - self.config.vocab_size
        if self.config.classes is not None or self.config.contrastive is not None:
            padding = 0
        return tokens * (hidden + 2 * self.config.hidden_size * padding)

    def recipe(self) -> Tree:
        data: Tree = {
            "kind": "bert",
            "corpus": "python-docs",
            "pairs": self.config.sentence_head,
            "mask": MASK,
        }
        if self.config.classes is not None:
            labels = [f"label {number}" for number in range(self.config.classes)]
            data = {
                "kind": "classify",
                "sources": [{"path": "rows.jsonl"}],
                "pair_key": "other",
                "classes": labels,
            }
        if self.config.contrastive is not None:
            data = {"kind": "contrastive", "sources": [{"path": "rows.jsonl"}]}
        sizes = {"sequence_length": self.sequence, "vocab_size": self.config.vocab_size}
        return super().recipe() | {"data": data | {"cls": 1, "sep": 2} | sizes}

    def _text(self, random: np.random.RandomState, rows: int, length: int) -> np.ndarray:
        """Counting upwards from somewhere: learnable."""
        start = random.randint(0, self.config.vocab_size, (rows, 1))
        return ((start + np.arange(length)) % self.config.vocab_size).astype(np.int32)

    def _documents(self, seed: int, rows: int) -> tuple[Arrays, Arrays]:
        """Two documents and some padding in every row; and each document in a row, padded behind."""
        random, names = np.random.RandomState(seed), ("tokens", "labels", "positions", "segment_ids")
        packed = {name: np.zeros((rows, self.sequence), np.int32) for name in (*names, "loss_mask")}
        alone = {name: np.zeros((2 * rows, self.sequence), np.int32) for name in (*names, "loss_mask")}
        for row in range(rows):
            first = random.randint(5, self.sequence - 7)
            ends = (0, first, self.sequence - random.randint(0, 3))
            for document in range(2):
                length = ends[document + 1] - ends[document]
                text, hidden = self._text(random, 1, length)[0], random.rand(length) < 0.3
                hidden[random.randint(length)] = row < rows - 1  # every document counts but those of the last
                hidden &= row < rows - 1
                arrays = {"tokens": np.where(hidden, MASK, text), "labels": text, "loss_mask": hidden}
                arrays |= {"positions": np.arange(length)}
                here, there = slice(ends[document], ends[document + 1]), slice(0, length)
                for name, array in arrays.items():
                    packed[name][row, here] = array
                    alone[name][2 * row + document, there] = array
                packed["segment_ids"][row, here] = document + 1
                alone["segment_ids"][2 * row + document, there] = 1
        first, second = (
            {**batch, "loss_mask": batch["loss_mask"].astype(np.float32)} for batch in (packed, alone)
        )
        return first, second
