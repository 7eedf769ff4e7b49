"""Whole documents in rows: each row holds as many as fit, apart from each other, and is filled up with
padding.

A document of L tokens takes L - 1 positions, for its last token is only a label. One that is longer than a
row is cut into windows which overlap by one token, as the windows of a token stream do. Rows are packed best
fit, the longest documents first, which leaves well under one percent of padding on ordinary text.
"""

import dataclasses
import os

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Integer

from mjx.data.cache import cached_arrays
from mjx.data.dataset import Batch, Dataset
from mjx.data.indexed import IndexedDataset, gather
from mjx.data.splits import EmptyPartError

_FORMAT = 1
"""Part of the cache key: raised when the cached arrays change their meaning."""


@dataclasses.dataclass(frozen=True)
class PackedIndex:
    piece_sequence: Int32[np.ndarray, "pieces"]
    """The document of each piece; the pieces of a row follow one another."""
    piece_offset: Int32[np.ndarray, "pieces"]
    """Where in the document the piece starts."""
    piece_length: Int32[np.ndarray, "pieces"]
    """Positions that the piece takes; it reads one token more."""
    row_start: Int64[np.ndarray, "rows+1"]
    """The first piece of each row, then the number of pieces."""
    row_order: Integer[np.ndarray, "samples"]
    """Sample id → row: all rows in a new order in every epoch."""


def build_packed_index(
    sequence_lengths: Int32[np.ndarray, "sequences"],
    split: range,
    *,
    sequence_length: int,
    num_samples: int | None,
    seed: int,
) -> PackedIndex:
    """Packs the documents of `split`; the same seed gives the same rows.

    Raises:
        EmptyPartError: no document of the split has the two tokens that a prediction takes.
    """
    random = np.random.RandomState(seed)
    sequence, offset, length = _windows(sequence_lengths, split, sequence_length)
    if not len(sequence):
        raise EmptyPartError(
            f"The split has no document of two tokens or more (documents {split.start} to {split.stop}): "
            "nothing to predict."
        )
    row = best_fit(length, sequence_length, random)
    order = np.argsort(row, kind="stable")
    rows = int(row.max()) + 1
    row_start = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(row, minlength=rows))])
    epochs = 1 if num_samples is None else -(-num_samples // rows)
    row_order = np.concatenate([random.permutation(rows) for _ in range(epochs)])[:num_samples]
    return PackedIndex(sequence[order], offset[order], length[order], row_start, row_order.astype(np.uint32))


def _windows(
    sequence_lengths: Int32[np.ndarray, "sequences"], split: range, sequence_length: int
) -> tuple[Int32[np.ndarray, "pieces"], Int32[np.ndarray, "pieces"], Int32[np.ndarray, "pieces"]]:
    """Sequence, offset and positions of each piece."""
    positions = np.maximum(sequence_lengths[split.start : split.stop].astype(np.int64) - 1, 0)
    windows = -(-positions // sequence_length)
    sequence = np.repeat(np.arange(split.start, split.stop, dtype=np.int32), windows)
    first = np.cumsum(windows) - windows
    offset = (np.arange(len(sequence)) - np.repeat(first, windows)) * sequence_length
    length = np.minimum(np.repeat(positions, windows) - offset, sequence_length)
    return sequence, offset.astype(np.int32), length.astype(np.int32)


def best_fit(
    lengths: Int[np.ndarray, "pieces"], capacity: int, random: np.random.RandomState
) -> Int64[np.ndarray, "pieces"]:
    """The row of each piece: by falling length, into the open row that it fills best, else into a new one.

    Pieces of one length are placed together, so the time grows with the lengths there are and not with the
    pieces. Which of them goes where is drawn from `random`.
    """
    row = np.empty(len(lengths), np.int64)
    drawn = random.permutation(len(lengths))
    drawn = drawn[np.argsort(-lengths[drawn], kind="stable")]
    sizes, starts = np.unique(-lengths[drawn], return_index=True)
    room: list[list[np.ndarray]] = [
        [] for _ in range(capacity + 1)
    ]  # open rows by the positions left in them
    has_rows: Bool[np.ndarray, "capacity+1"] = np.zeros(capacity + 1, bool)
    rows = 0

    def leave(left: int, some: np.ndarray) -> None:
        if left and len(some):
            room[left].append(some)
            has_rows[left] = True

    for size, pieces in zip(-sizes, np.split(drawn, starts[1:]), strict=True):
        while len(pieces):
            left = int(size) + int(np.argmax(has_rows[size:]))
            if not has_rows[left]:
                each = capacity // int(size)
                where = rows + np.arange(len(pieces)) // each
                row[pieces] = where
                rows = int(where[-1]) + 1
                in_last = len(pieces) - each * (len(pieces) // each)
                full = where[: len(pieces) - in_last : each]
                leave(capacity - each * int(size), full)
                if in_last:
                    leave(capacity - in_last * int(size), where[-1:])
                break
            some = np.concatenate(room[left])
            room[left], has_rows[left] = [], False
            taken = min(len(some), len(pieces))
            row[pieces[:taken]] = some[:taken]
            leave(left - int(size), some[:taken])
            leave(left, some[taken:])
            pieces = pieces[taken:]
    return row


def load_packed_index(
    dataset: IndexedDataset,
    split: range,
    cache_dir: str | os.PathLike[str],
    *,
    sequence_length: int,
    num_samples: int | None,
    seed: int,
    timeout: float = 3600.0,
) -> PackedIndex:
    """`build_packed_index` through a cache: built by the first process that asks, mapped into memory by
    all."""
    choices = {"sequence_length": sequence_length, "num_samples": num_samples, "seed": seed}
    key = {"format": _FORMAT, "dataset": dataset.identity(), "split": [split.start, split.stop], **choices}

    def build() -> dict[str, np.ndarray]:
        dataset.verify()
        return vars(build_packed_index(dataset.sequence_lengths, split, **choices))

    names = [field.name for field in dataclasses.fields(PackedIndex)]
    return PackedIndex(**cached_arrays(cache_dir, "packed", key, names, build, timeout))


class PackedDataset(Dataset):
    """Rows of whole documents, with `segment_ids` and with positions that start again in each."""

    def __init__(
        self,
        dataset: IndexedDataset,
        index: PackedIndex,
        *,
        sequence_length: int,
        vocab_size: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.index = index
        self.sequence_length = sequence_length
        self.vocab_size = vocab_size

    def __len__(self) -> int:
        return len(self.index.row_order)

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        rows = self.index.row_order[samples].astype(np.int64)
        first, pieces = (
            self.index.row_start[rows],
            self.index.row_start[rows + 1] - self.index.row_start[rows],
        )
        in_batch = np.cumsum(pieces) - pieces  # the place of each row's first piece among those read
        within = np.arange(int(pieces.sum())) - np.repeat(in_batch, pieces)
        piece = within + np.repeat(first, pieces)
        lengths = self.index.piece_length[piece].astype(np.int64)
        sequence = self.index.piece_sequence[piece]
        sources = self.dataset.sequence_pointers[sequence] // self.dataset.dtype.itemsize
        sources = sources + self.index.piece_offset[piece]

        filled = np.add.reduceat(lengths, in_batch)
        some = np.arange(self.sequence_length) < filled[:, None]
        batch: Batch = {
            name: np.zeros(some.shape, np.int32) for name in ("tokens", "labels", "positions", "segment_ids")
        }
        batch["loss_mask"] = some.astype(np.float32)
        batch["tokens"][some] = gather(self.dataset, sources, lengths, self.vocab_size)
        batch["labels"][some] = gather(self.dataset, sources + 1, lengths, self.vocab_size)
        batch["positions"][some] = np.arange(int(lengths.sum())) - np.repeat(
            np.cumsum(lengths) - lengths, lengths
        )
        batch["segment_ids"][some] = np.repeat(within + 1, lengths)
        return batch

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0
