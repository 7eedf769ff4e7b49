"""Rows for a model that says of a text, or of two, of which class it is, or a number: classification."""

import dataclasses
import json
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int64

from mjx.batch import BatchArray, BatchArrays
from mjx.data.dataset import Batch, Dataset
from mjx.data.indexed import IndexedDataset, gather
from mjx.data.pairs.config import PairsConfig
from mjx.data.pairs.order import bucket_of, fitted, row_order
from mjx.data.pairs.prepared import PairedDataset, Texts
from mjx.data.pairs.rows import read_rows, text_in
from mjx.data.text import SourceConfig
from mjx.data.tokenizers import Tokenizer
from mjx.data.tokenizers.special import SpecialToken, SpecialTokens
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledConfig(PairsConfig):
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
    cls: SpecialToken = None
    """What begins a row: a token or its id; null: what the tokenizer calls so."""
    sep: SpecialToken = None
    """What ends a text: a token or its id; null: what the tokenizer calls so."""
    separators: int = 1
    """How many of them stand between two texts (RoBERTa: 2)."""

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classes

    def arrays(self, rows: int) -> BatchArrays:
        names = ("tokens", "segment_ids", *(("token_types",) if self.pair_key is not None else ()))
        arrays = {
            name: BatchArray(shape=(rows, self.sequence_length), dtype="int32", axes=("batch", "sequence"))
            for name in names
        }
        dtypes = {"labels": "int32" if self.classes else "float32", "loss_mask": "float32"}
        return arrays | {
            name: BatchArray(shape=(rows,), dtype=dtype, axes=("batch",)) for name, dtype in dtypes.items()
        }

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
        found = SpecialTokens(tokenizer, vocab_size)
        return LabelledTexts(
            source,
            documents,
            num_samples,
            config=self,
            cls_id=found.find("cls", self.cls),
            sep_id=found.find("sep", self.sep),
            pad_id=found.find_or_none("pad", self.pad) or 0,
            vocab_size=vocab_size,
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
        if self.separators < 1:
            raise InputError(f"separators = {self.separators} must be at least 1.")


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
        cls_id: int,
        sep_id: int,
        pad_id: int,
        vocab_size: int,
    ) -> None:
        """Args:
        dataset: A document a row.
        documents: Those of the split.
        num_samples: So many, over as many epochs as it takes; None: every row once.
        config: How rows are made of them.
        cls_id: Begins a row.
        sep_id: Ends a text.
        pad_id: Fills rows.
        vocab_size: A token id that is not below it is an error.
        """
        self.dataset = dataset
        self.config = config
        self.cls_id, self.sep_id, self.pad_id = cls_id, sep_id, pad_id
        self.vocab_size = vocab_size
        self.texts = 1 if config.pair_key is None else 2
        self.special = 2 if self.texts == 1 else 2 + config.separators
        first = self.texts * documents.start
        whole = dataset.sequence_lengths[first : self.texts * documents.stop].astype(np.int64)
        whole = whole.reshape(-1, self.texts)
        room = config.sequence_length - self.special
        kept = fitted(whole[:, 0], whole[:, 1] if self.texts == 2 else 0 * whole[:, 0], room)
        self.kept: Int64[np.ndarray, "rows texts"] = np.stack(kept[: self.texts], axis=1)
        """The tokens that are read of each text."""
        cut = int((self.kept < whole).any(axis=1).sum())
        if cut:
            logging.getLogger("mjx").warning(
                "%d of %d rows have more than data.sequence_length = %d tokens, and are cut",
                cut,
                len(whole),
                config.sequence_length,
            )
        self.documents = documents
        self.lengths = self.kept.sum(axis=1) + self.special
        self.order = row_order(self.lengths, num_samples, config.seed, config.sort_rows)

    def __len__(self) -> int:
        return len(self.order)

    def widths(self, samples: Int[np.ndarray, "batch"]) -> Mapping[str, int]:
        config = self.config
        if not config.buckets:
            return {}
        longest = int(self.lengths[self.order[samples]].max())
        width = bucket_of(longest, config.buckets, config.sequence_length)
        return dict.fromkeys(("tokens", "segment_ids", "token_types")[: 1 + self.texts], width)

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        rows = self.order[samples]
        sequences = self.texts * (self.documents.start + rows)[:, None] + np.arange(self.texts)
        sources = self.dataset.sequence_pointers[sequences] // self.dataset.dtype.itemsize
        kept = self.kept[rows]
        found = gather(self.dataset, sources.reshape(-1), kept.reshape(-1), self.vocab_size)
        shape = (len(samples), self.config.sequence_length)
        tokens = np.full(shape, self.pad_id, np.int32)
        place = np.arange(shape[1])
        tokens[:, 0] = self.cls_id
        end = np.ones(len(samples), np.int64)
        part = np.zeros((self.texts, *shape), bool)
        types = np.zeros(shape, np.int32)
        for text in range(self.texts):
            begin, end = end, end + kept[:, text]
            part[text] = (place >= begin[:, None]) & (place < end[:, None])
            last = text == self.texts - 1
            after = 1 if last else self.config.separators
            separator = (place >= end[:, None]) & (place < (end + after)[:, None])
            tokens[separator] = self.sep_id
            types[(part[text] | (separator if last else False))] = text
            end = end + after
        # The pieces stand one after another, row by row.
        tokens[part.any(axis=0)] = found
        batch: Batch = {"tokens": tokens, "segment_ids": (place < end[:, None]).astype(np.int32)}
        if self.texts == 2:
            batch["token_types"] = types
        labels = self.dataset.labels[self.documents.start + rows]
        batch["labels"] = labels.astype(np.int32 if self.config.classes else np.float32)
        batch["loss_mask"] = np.ones(len(samples), np.float32)
        return batch

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0
