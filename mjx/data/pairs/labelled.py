"""Rows for a model that says of a text, or of two, of which class it is, or a number: classification."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int64

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
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledConfig(SurroundedConfig):
    """Texts with a label: `[CLS] text [SEP]`, or of two `[CLS] text [SEP] other [SEP]`."""

    kind: ClassVar[str] = "classify"

    text_key: str = "text"
    """Key or column of the text (in a `.tsv` without names, its number from 1)."""
    pair_key: str | None = None
    """Key or column of a second text (gives token_types); null: there is none."""
    label_key: str = "label"
    """Key or column of the label."""
    classes: tuple[str, ...] = ()
    """The labels in the order of their numbers; []: labels are numbers, which are learned as such."""
    separators: int | None = None
    """How many `sep` stand between two texts; null: as many as the tokenizer sets there (RoBERTa: 2)."""
    token_types: bool = True
    """Of two texts, tell the model which is which (RoBERTa and ModernBERT have no such table: false)."""

    @property
    def texts(self) -> int:
        """Of a row."""
        return 1 if self.pair_key is None else 2

    def surrounding(self, tokenizer: Tokenizer | None, vocab_size: int) -> Surrounding:
        around = super().surrounding(tokenizer, vocab_size)
        return around if self.separators is None else dataclasses.replace(around, separators=self.separators)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classes

    def arrays(self, rows: int) -> BatchArrays:
        names = self.sequences
        arrays = {
            name: BatchArray(shape=(rows, self.sequence_length), dtype="int32", axes=("batch", "sequence"))
            for name in names
        }
        dtypes = {"labels": "int32" if self.classes else "float32", "loss_mask": "float32"}
        return arrays | {
            name: BatchArray(shape=(rows,), dtype=dtype, axes=("batch",)) for name, dtype in dtypes.items()
        }

    @property
    def sequences(self) -> tuple[str, ...]:
        """Arrays of tokens."""
        types = self.texts == 2 and self.token_types
        return ("tokens", "segment_ids", *(("token_types",) if types else ()))

    def rows(self, source: SourceConfig) -> Iterator[Texts]:
        columns = [self.text_key, *(() if self.pair_key is None else (self.pair_key,))]
        for place, values in read_rows(source.path, [*columns, self.label_key]):
            texts = [text_in(value, place, column) for value, column in zip(values, columns, strict=False)]
            yield place, texts, self._label(values[-1], place)

    def makes_rows(self) -> dict[str, Any]:
        return {
            "columns": [self.text_key, self.pair_key, self.label_key],
            "classes": list(self.classes),
        }

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
        return LabelledTexts(
            source, documents, num_samples, config=self, around=around, vocab_size=vocab_size
        )

    def _label(self, value: Any, place: str) -> float:
        if self.classes:
            name = value if isinstance(value, str) else json.dumps(value)
            if name not in self.classes:
                raise InputError(
                    f'{place}: the label "{name}" is none of data.classes = {list(self.classes)}.'
                )
            return self.classes.index(name)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(
                f"{place}: the label {value!r} is no number; where labels are classes, data.classes names "
                "them."
            )
        return number

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.classes)) != len(self.classes) or len(self.classes) == 1:
            raise InputError(f"classes = {list(self.classes)} must be two or more, each once; or [].")
        if self.separators is not None and self.separators < 1:
            raise InputError(f"separators = {self.separators} must be at least 1, or null.")


CONFIG = LabelledConfig


class LabelledTexts(Dataset):
    """Rows in an order drawn anew in every epoch."""

    def __init__(
        self,
        dataset: PairedDataset,
        documents: range,
        num_samples: int | None,
        *,
        config: LabelledConfig,
        around: Surrounding,
        vocab_size: int,
    ) -> None:
        """Args:
        dataset: A document a row.
        documents: Those of the split.
        num_samples: So many, over as many epochs as it takes; None: every row once.
        config: How rows are made of them.
        around: What stands around texts.
        vocab_size: A token id that is not below it is an error.
        """
        self.dataset = dataset
        self.config, self.around = config, around
        self.vocab_size = vocab_size
        self.texts = config.texts
        whole = text_lengths(dataset, documents, self.texts)
        self.kept: Int64[np.ndarray, "rows texts"] = around.kept(whole, config.sequence_length)
        """The tokens that are read of each text."""
        warn_of_cut_rows(np.any(self.kept < whole, axis=1), config.sequence_length)
        self.documents = documents
        self.lengths = self.kept.sum(axis=1) + around.special(self.texts)
        self.order = row_order(self.lengths, num_samples, config.seed, config.sort_rows)

    def __len__(self) -> int:
        return len(self.order)

    def widths(self, samples: Int[np.ndarray, "batch"]) -> Mapping[str, int]:
        config = self.config
        if not config.buckets:
            return {}
        longest = int(self.lengths[self.order[samples]].max())
        return dict.fromkeys(config.sequences, bucket_of(longest, config.buckets, config.sequence_length))

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        rows = self.order[samples]
        kept = self.kept[rows]
        found = tokens_of(self.dataset, self.documents.start + rows, kept, self.vocab_size)
        made = self.around.rows(found, kept, self.config.sequence_length)
        batch: Batch = {name: made[name] for name in self.config.sequences}
        labels = self.dataset.labels[self.documents.start + rows]
        batch["labels"] = labels.astype(np.int32 if self.config.classes else np.float32)
        batch["loss_mask"] = np.ones(len(samples), np.float32)
        return batch

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0
