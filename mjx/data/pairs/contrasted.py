"""Pairs of texts that belong together, for a model that learns to tell them from all others of a batch."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int

from mjx.batch import BatchArray, BatchArrays
from mjx.data.dataset import Batch, Dataset
from mjx.data.indexed import IndexedDataset
from mjx.data.pairs.config import SurroundedConfig
from mjx.data.pairs.order import bucket_of, row_order
from mjx.data.pairs.prepared import PairedDataset, Texts, text_lengths, tokens_of, warn_of_cut_rows
from mjx.data.pairs.rows import read_rows, text_in
from mjx.data.pairs.surrounded import Surrounding
from mjx.data.text import SourceConfig
from mjx.data.tokenizers import Tokenizer

_SEQUENCES = ("tokens", "segment_ids", "other_tokens", "other_segment_ids")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastedConfig(SurroundedConfig):
    """Two texts in rows of their own, `[CLS] text [SEP]` each."""

    kind: ClassVar[str] = "contrastive"

    anchor_key: str = "anchor"
    """Key or column of the first text (in a `.tsv` without names, its number from 1)."""
    positive_key: str = "positive"
    """Key or column of the text that belongs to it."""

    def arrays(self, rows: int) -> BatchArrays:
        shape = (rows, self.sequence_length)
        arrays = {
            name: BatchArray(shape=shape, dtype="int32", axes=("batch", "sequence")) for name in _SEQUENCES
        }
        return arrays | {"loss_mask": BatchArray(shape=(rows,), dtype="float32", axes=("batch",))}

    def rows(self, source: SourceConfig) -> Iterator[Texts]:
        columns = [self.anchor_key, self.positive_key]
        for place, values in read_rows(source.path, columns):
            texts = [text_in(value, place, column) for value, column in zip(values, columns, strict=True)]
            yield place, texts, 0.0

    def makes_rows(self) -> dict[str, Any]:
        return {"columns": [self.anchor_key, self.positive_key]}

    def samples(
        self,
        source: IndexedDataset,
        documents: range,
        num_samples: int | None,
        *,
        tokenizer: Tokenizer | None,
        vocab_size: int,
    ) -> Dataset:
        assert isinstance(source, PairedDataset)
        around = self.surrounding(tokenizer, vocab_size)
        return ContrastedTexts(
            source, documents, num_samples, config=self, around=around, vocab_size=vocab_size
        )


CONFIG = ContrastedConfig


class ContrastedTexts(Dataset):
    """Pairs in an order drawn anew in every epoch."""

    def __init__(
        self,
        dataset: PairedDataset,
        documents: range,
        num_samples: int | None,
        *,
        config: ContrastedConfig,
        around: Surrounding,
        vocab_size: int,
    ) -> None:
        """Args:
        dataset: A document a pair.
        documents: Those of the split.
        num_samples: So many, over as many epochs as it takes; None: every pair once.
        config: How rows are made of them.
        around: What stands around each text.
        vocab_size: A token id that is not below it is an error.
        """
        self.dataset, self.documents = dataset, documents
        self.config, self.around = config, around
        self.vocab_size = vocab_size
        whole = text_lengths(dataset, documents, 2)
        self.kept = np.minimum(whole, config.sequence_length - around.special(1))
        warn_of_cut_rows(np.any(self.kept < whole, axis=1), config.sequence_length)
        self.lengths = self.kept.max(axis=1) + around.special(1)
        self.order = row_order(self.lengths, num_samples, config.seed, config.sort_rows)

    def __len__(self) -> int:
        return len(self.order)

    def widths(self, samples: Int[np.ndarray, "batch"]) -> Mapping[str, int]:
        config = self.config
        if not config.buckets:
            return {}
        longest = int(self.lengths[self.order[samples]].max())
        return dict.fromkeys(_SEQUENCES, bucket_of(longest, config.buckets, config.sequence_length))

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        rows = self.order[samples]
        kept = self.kept[rows]
        found = tokens_of(self.dataset, self.documents.start + rows, kept, self.vocab_size)
        made = self.around.rows(found, kept.reshape(-1, 1), self.config.sequence_length)
        batch: Batch = {"loss_mask": np.ones(len(samples), np.float32)}
        for name in ("tokens", "segment_ids"):
            batch[name], batch[f"other_{name}"] = made[name][::2], made[name][1::2]
        return batch

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0
