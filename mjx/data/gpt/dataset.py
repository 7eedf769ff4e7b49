"""Samples for a causal language model: a window of the token stream, its labels, and its masks."""

import numpy as np
from jaxtyping import Bool, Int, Int32

from mjx.data.dataset import Batch, Dataset
from mjx.data.gpt.index import GPTIndex
from mjx.data.indexed import IndexedDataset, gather

PADDING = -1
"""Stands for "no token" until the masks are made."""


class GPTDataset(Dataset):
    """Megatron's GPTDataset: the same tokens, labels, loss mask and positions for the same sample id.

    Positions are there where they are not simply 0, 1, 2, …: with `reset_positions`.
    """

    def __init__(
        self,
        dataset: IndexedDataset,
        index: GPTIndex,
        *,
        sequence_length: int,
        add_extra_token: bool = True,
        vocab_size: int | None = None,
        eod_id: int | None = None,
        pad_id: int | None = None,
        document_mask: bool = False,
        reset_positions: bool = False,
        mask_eod_loss: bool = False,
    ) -> None:
        """Args:
        dataset: The tokens.
        index: Which of them make up a sample.
        sequence_length: As the index was built with.
        add_extra_token: As the index was built with; without it, the last position has no label.
        vocab_size: A token id that is not below it is an error.
        eod_id: The token that ends a document, for the three masks. Documents that do not end with it end
            where the `.idx` says so.
        pad_id: Labels equal to it are not learned, and it is read as token 0.
        document_mask: Give `segment_ids`, which keep documents apart (--reset-attention-mask).
        reset_positions: Positions start at 0 in every document (--reset-position-ids).
        mask_eod_loss: Do not learn what comes after the end of a document (--eod-mask-loss).
        """
        self.dataset = dataset
        self.index = index
        self.sequence_length = sequence_length
        self.extra = int(add_extra_token)
        self.vocab_size = vocab_size
        self.eod_id = eod_id
        self.pad_id = pad_id
        self.document_mask = document_mask
        self.reset_positions = reset_positions
        self.mask_eod_loss = mask_eod_loss

    def __len__(self) -> int:
        return self.index.num_samples

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        text, document_ends = self._read(samples)
        tokens, labels = text[:, :-1], text[:, 1:]
        loss_mask = np.ones(tokens.shape, np.float32)
        batch: Batch = {"tokens": tokens, "labels": labels, "loss_mask": loss_mask}
        if document_ends is not None:
            ends = document_ends[:, :-1]
            if self.eod_id is not None:
                ends |= tokens == self.eod_id
            if self.mask_eod_loss:
                loss_mask[ends] = 0.0
            starts = np.zeros(ends.shape, bool)
            starts[:, 1:] = ends[:, :-1]
            if self.reset_positions:
                batch["positions"] = positions_of(starts)
            if self.document_mask:
                segments = 1 + np.cumsum(starts, axis=1, dtype=np.int32)
                batch["segment_ids"] = np.where(tokens == PADDING, 0, segments)
        padding = text == PADDING if self.pad_id is None else (text == PADDING) | (text == self.pad_id)
        loss_mask[padding[:, 1:]] = 0.0
        text[padding] = 0
        return {name: np.ascontiguousarray(values) for name, values in batch.items()}

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0

    def _read(
        self, samples: Int[np.ndarray, "batch"]
    ) -> tuple[Int32[np.ndarray, "batch sequence+1"], Bool[np.ndarray, "batch sequence+1"] | None]:
        """The tokens of the samples and of one position more, by one gather from the `.bin`; and for the
        masks, which of them end a document without an end-of-document token."""
        rows = self.index.shuffle_index[samples].astype(np.int64)
        begin, end = self.index.sample_index[rows], self.index.sample_index[rows + 1]
        # A sample's documents are its pieces: whole, but for the start of the first and the end of the last.
        pieces = end[:, 0].astype(np.int64) - begin[:, 0] + 1
        last = np.cumsum(pieces) - 1
        first = last - pieces + 1
        place = np.arange(last[-1] + 1) + np.repeat(begin[:, 0] - first, pieces)
        sequences = self.index.document_index[place]
        offsets = np.zeros(len(place), np.int64)
        offsets[first] = begin[:, 1]
        stops = self.dataset.sequence_lengths[sequences].astype(np.int64)
        stops[last] = end[:, 1].astype(np.int64) + self.extra
        sources = self.dataset.sequence_pointers[sequences] // self.dataset.dtype.itemsize + offsets
        lengths = stops - offsets

        found = gather(self.dataset, sources, lengths, self.vocab_size)
        filled = np.add.reduceat(lengths, first)
        text = self._in_rows(found, filled, np.int32(PADDING))
        if not (self.document_mask or self.reset_positions or self.mask_eod_loss):
            return text, None
        reaches_end = (stops == self.dataset.sequence_lengths[sequences]) & (lengths > 0)
        ends = np.zeros(len(found), bool)
        ends[np.cumsum(lengths)[reaches_end & ~self._end_in_eod(sequences)] - 1] = True
        return text, self._in_rows(ends, filled, np.bool(False))

    def _in_rows(self, found: np.ndarray, filled: Int[np.ndarray, "batch"], fill: np.generic) -> np.ndarray:
        """What was found for the positions of all samples, a row a sample; `fill` where it ends early."""
        rows = np.full((len(filled), self.sequence_length + 1), fill)
        if (filled == self.sequence_length + self.extra).all():
            rows[:, : self.sequence_length + self.extra] = found.reshape(len(rows), -1)
        else:
            rows[np.arange(rows.shape[1]) < filled[:, None]] = found
        return rows

    def _end_in_eod(self, sequences: Int[np.ndarray, "pieces"]) -> Bool[np.ndarray, "pieces"]:
        """Whether the documents of these sequences end with the end-of-document token, so that Megatron finds
        their ends; the others' sequences are documents of their own, as in packed rows."""
        if self.eod_id is None:
            return np.zeros(len(sequences), bool)
        documents = self.dataset.document_indices
        last = documents[np.searchsorted(documents, sequences, side="right")] - 1
        after = self.dataset.sequence_pointers[last] // self.dataset.dtype.itemsize
        after += self.dataset.sequence_lengths[last]
        return self.dataset.tokens.take(after - 1) == self.eod_id


def positions_of(starts: Bool[np.ndarray, "batch sequence"]) -> Int32[np.ndarray, "batch sequence"]:
    """Positions that count from 0 at every start (and at the start of the row)."""
    place = np.arange(starts.shape[1], dtype=np.int32)
    return place - np.maximum.accumulate(np.where(starts, place, 0), axis=1)
