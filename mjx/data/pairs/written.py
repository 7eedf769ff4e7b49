"""Rows for an encoder-decoder that writes one text for another: translation, summaries, answers."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int64

from mjx.batch import BatchArrays, coded_batch
from mjx.data.dataset import Batch, Dataset
from mjx.data.gpt.packing import best_fit
from mjx.data.indexed import IndexedDataset, gather
from mjx.data.pairs.config import PairsConfig
from mjx.data.pairs.order import bucket_of, row_order
from mjx.data.pairs.prepared import PairedDataset, Texts
from mjx.data.pairs.rows import read_lines_together, read_rows, text_in
from mjx.data.text import SourceConfig, ValidationConfig
from mjx.data.tokenizers import Tokenizer
from mjx.data.tokenizers.special import SpecialToken, SpecialTokens
from mjx.errors import InputError
from mjx.files import LocalPath


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairSourceConfig(SourceConfig):
    """Files of pairs, or two files of text whose lines are pairs."""

    path: LocalPath
    """`.jsonl`, `.json`, `.tsv` or `.parquet`, a folder or pattern of them; with target_path a text file."""
    target_path: LocalPath | None = None
    """A text file with as many lines, each what is written for a line of `path`; null: `path` has both."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairValidationConfig(ValidationConfig):
    """A validation set with files of its own, which are read whole."""

    sources: tuple[PairSourceConfig, ...]
    """Files of pairs, all of their rows once, spread evenly; so weights are left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenConfig(PairsConfig):
    """The encoder reads `source EOS`; the decoder begins with the start token and learns `target EOS`."""

    kind: ClassVar[str] = "seq2seq"

    sources: tuple[PairSourceConfig, ...] = ()
    """Files of pairs, blended by their weights."""
    validation: Mapping[str, PairValidationConfig] = dataclasses.field(default_factory=dict)
    """Validation sets with files of their own, instead of the split's valid part, by name."""
    source_key: str = "source"
    """Key or column of what the encoder reads (in a `.tsv` without names, its number from 1)."""
    target_key: str = "target"
    """Key or column of what the decoder writes."""
    prefix: str = ""
    """What stands before every source: "translate English to French: "."""
    decoder_length: int = 128
    """Tokens in a row of the decoder. What is longer is cut, with a warning."""
    source_eos: bool = True
    """The encoder's text ends with eos too."""
    packing: bool = False
    """Rows of as many pairs as fit, each apart from the others, with positions of its own in both rows."""
    start: SpecialToken = None
    """What the decoder begins with: a token or its id; null: the tokenizer's bos or [BOS], else its pad."""
    eos: SpecialToken = None
    """What ends texts: a token or its id; null: [EOS], or the tokenizer's eos."""

    def arrays(self, rows: int) -> BatchArrays:
        extras = ((), ()) if not self.packing else (("positions",), ("decoder_positions",))
        return coded_batch(rows, self.sequence_length, self.decoder_length, *extras)

    def start_token(self, tokenizer: Tokenizer | None, vocab_size: int) -> int:
        return SpecialTokens(tokenizer, vocab_size).start(self.start, self.pad)

    def prompts(self, tokenizer: Tokenizer, texts: Sequence[str], vocab_size: int) -> list[list[int]]:
        """As the encoder reads sources: the prefix, the text, and what ends it."""
        rows = tokenizer.encode_batch([self.prefix + text for text in texts])
        end = [SpecialTokens(tokenizer, vocab_size).find("eos", self.eos)] if self.source_eos else []
        return [[*row, *end] for row in rows]

    def rows(self, source: SourceConfig) -> Iterator[Texts]:
        assert isinstance(source, PairSourceConfig)
        columns = [self.source_key, self.target_key]
        if source.target_path is not None:
            rows = read_lines_together(source.path, source.target_path)
        else:
            rows = read_rows(source.path, columns)
        for place, values in rows:
            first, second = (
                text_in(value, place, column) for value, column in zip(values, columns, strict=True)
            )
            yield place, [self.prefix + first, second], 0.0

    def paths(self, source: SourceConfig) -> list[str]:
        assert isinstance(source, PairSourceConfig)
        return [source.path, *(() if source.target_path is None else (source.target_path,))]

    def makes_rows(self) -> dict[str, Any]:
        return {"columns": [self.source_key, self.target_key], "prefix": self.prefix}

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
        pad = found.find_or_none("pad", self.pad)
        return WrittenTexts(
            source,
            documents,
            num_samples,
            config=self,
            start_id=found.start(self.start, self.pad),
            eos_id=found.find("eos", self.eos),
            pad_id=pad or 0,
            vocab_size=vocab_size,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_length < 4:
            raise InputError(f"decoder_length = {self.decoder_length} must be at least 4.")
        if self.packing and (self.buckets or self.sort_rows):
            raise InputError(
                "buckets and sort_rows are for rows that are padded; with packing = true none are."
            )


CONFIG = WrittenConfig


class WrittenTexts(Dataset):
    """Rows of one pair, or of several, in an order drawn anew in every epoch."""

    def __init__(
        self,
        dataset: PairedDataset,
        documents: range,
        num_samples: int | None,
        *,
        config: WrittenConfig,
        start_id: int,
        eos_id: int,
        pad_id: int,
        vocab_size: int,
    ) -> None:
        """Args:
        dataset: A document a pair.
        documents: Those of the split.
        num_samples: So many rows, over as many epochs as it takes; None: every pair once.
        config: How rows are made of them.
        start_id: The decoder's first token.
        eos_id: Ends texts.
        pad_id: Fills rows.
        vocab_size: A token id that is not below it is an error.
        """
        self.dataset = dataset
        self.config = config
        self.start_id, self.eos_id, self.pad_id = start_id, eos_id, pad_id
        self.vocab_size = vocab_size
        lengths = dataset.sequence_lengths[2 * documents.start : 2 * documents.stop].astype(np.int64)
        whole = lengths.reshape(-1, 2) + np.array([int(config.source_eos), 1])
        self.lengths: Int64[np.ndarray, "pairs 2"] = np.minimum(
            whole, [config.sequence_length, config.decoder_length]
        )
        """The tokens of each side, with eos."""
        for side, (name, length) in enumerate(
            (("sequence_length", config.sequence_length), ("decoder_length", config.decoder_length))
        ):
            if cut := int((whole[:, side] > length).sum()):
                logging.getLogger("mjx").warning(
                    "%d of %d %s have more than data.%s = %d tokens, and are cut",
                    cut,
                    len(whole),
                    ("sources", "targets")[side],
                    name,
                    length,
                )
        self.documents = documents
        self.pairs = np.arange(len(whole))
        """The pairs, those of a row one after another."""
        self.row_start = np.arange(len(whole) + 1)
        """The first of each row, then the number of pairs."""
        longest = self.lengths.max(axis=1)
        if config.packing:
            self._pack()
            longest = np.zeros(len(self.row_start) - 1, np.int64)
        self.order = row_order(longest, num_samples, config.seed, config.sort_rows)

    def _pack(self) -> None:
        """Rows of as many pairs as fit: of each pair counts the side that fills more of its row."""
        room = max(self.config.sequence_length, self.config.decoder_length)
        sides = np.array([self.config.sequence_length, self.config.decoder_length])
        sizes = (-(-self.lengths * room // sides)).max(axis=1)
        row = best_fit(sizes, room, np.random.RandomState(self.config.seed))
        self.pairs = np.argsort(row, kind="stable")
        self.row_start = np.append(0, np.cumsum(np.bincount(row)))

    def __len__(self) -> int:
        return len(self.order)

    def widths(self, samples: Int[np.ndarray, "batch"]) -> Mapping[str, int]:
        config = self.config
        if not config.buckets:
            return {}
        longest = self.lengths[self.order[samples]].max(axis=0)
        encoder = bucket_of(int(longest[0]), config.buckets, config.sequence_length)
        decoder = min(
            bucket_of(int(longest[1]), config.buckets, config.decoder_length), config.decoder_length
        )
        return {name: encoder if name in ("tokens", "segment_ids") else decoder for name in config.arrays(1)}

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        rows = self.order[samples]
        first, pieces = self.row_start[rows], self.row_start[rows + 1] - self.row_start[rows]
        in_batch = np.cumsum(pieces) - pieces
        within = np.arange(int(pieces.sum())) - np.repeat(in_batch, pieces)
        pairs = self.pairs[within + np.repeat(first, pieces)]
        config = self.config
        batch: Batch = {}
        encoder = self._side(pairs, 0, within, in_batch, config.sequence_length, config.source_eos)
        decoder = self._side(pairs, 1, within, in_batch, config.decoder_length, True)
        batch["tokens"], batch["segment_ids"], positions = encoder
        batch["labels"], batch["decoder_segment_ids"], decoder_positions = decoder
        real = batch["decoder_segment_ids"] > 0
        before = np.roll(batch["labels"], 1, axis=1)
        before[decoder_positions == 0] = self.start_id
        batch["decoder_tokens"] = np.where(real, before, self.pad_id).astype(np.int32)
        batch["loss_mask"] = real.astype(np.float32)
        if config.packing:
            batch["positions"], batch["decoder_positions"] = positions, decoder_positions
        return batch

    def _side(
        self,
        pairs: Int64[np.ndarray, "pairs"],
        side: int,
        within: Int64[np.ndarray, "pairs"],
        in_batch: Int64[np.ndarray, "batch"],
        length: int,
        ends: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens, segments and positions of the encoder's rows or of the decoder's labels."""
        lengths = self.lengths[pairs, side]
        sequences = 2 * (self.documents.start + pairs) + side
        sources = self.dataset.sequence_pointers[sequences] // self.dataset.dtype.itemsize
        text = lengths - int(ends)
        flat = np.full(int(lengths.sum()), self.eos_id, np.int32)
        stops = np.cumsum(lengths)
        position = np.arange(len(flat)) - np.repeat(stops - lengths, lengths)
        flat[position < np.repeat(text, lengths)] = gather(self.dataset, sources, text, self.vocab_size)
        some = np.arange(length) < np.add.reduceat(lengths, in_batch)[:, None]
        made = [np.full(some.shape, fill, np.int32) for fill in (self.pad_id, 0, 0)]
        for array, values in zip(made, (flat, np.repeat(within + 1, lengths), position), strict=True):
            array[some] = values
        return made[0], made[1], made[2]

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0
