"""The tokens of samples that are made of sentences."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64, UInt

from mjx.data.indexed import IndexedDataset, gather


class Sample(NamedTuple):
    """The text of a sample."""

    tokens: Int64[np.ndarray, "tokens"]
    ends: Int64[np.ndarray, "sentences"]
    """Of each sentence, in `tokens`."""
    length: int
    """The tokens that it may have."""


class Sentences:
    """Samples by their ids."""

    def __init__(
        self, dataset: IndexedDataset, samples: UInt[np.ndarray, "samples 3"], *, vocab_size: int
    ) -> None:
        """Args:
        dataset: A sequence a sentence.
        samples: As `build_sentence_map` makes them.
        vocab_size: A token id that is not below it is an error.
        """
        self.dataset = dataset
        self.samples = samples
        self.vocab_size = vocab_size

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, samples: Int[np.ndarray, "batch"]) -> Iterator[Sample]:
        """The samples with these ids, read by one gather from the `.bin`."""
        begin, end, length = self.samples[samples].astype(np.int64).T
        sizes = end - begin
        after = np.cumsum(sizes)
        sequences = np.arange(after[-1]) + np.repeat(begin - (after - sizes), sizes)
        lengths = self.dataset.sequence_lengths[sequences].astype(np.int64)
        sources = self.dataset.sequence_pointers[sequences] // self.dataset.dtype.itemsize
        tokens = gather(self.dataset, sources, lengths, self.vocab_size).astype(np.int64)
        ends = np.cumsum(lengths)
        place = 0
        for row, (last, size) in enumerate(zip(after.tolist(), sizes.tolist(), strict=True)):
            stops = ends[last - size : last]
            yield Sample(tokens[place : stops[-1]], stops - place, int(length[row]))
            place = int(stops[-1])
