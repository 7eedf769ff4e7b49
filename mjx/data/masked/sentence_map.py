"""Which sentences make up a sample: the map of Megatron-Core's masked datasets.

The sentences of a document are grouped, in order, until a sample has as many tokens as it should: usually
`length`, and with a small probability fewer. All documents are gone through in every epoch, and the samples
are shuffled at the end. The array equals that of Megatron-Core 0.16.1, bit for bit.

What makes it hard to do at once for all documents is that samples draw their lengths from one stream of
random numbers, so that where a document stands in it depends on how many samples there were before. But most
samples have the usual length. With those alone, the samples and the places in the stream are known ahead
(`_Usual`); only where a shorter one ends somewhere else are samples taken one by one, until they are again
those that are known.
"""

import bisect
import os
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt

from mjx.data.cache import cached_arrays
from mjx.data.indexed import LONGEST_SENTENCE, IndexedDataset
from mjx.data.masked.mersenne import raw_numbers, shuffled
from mjx.data.splits import EmptyPartError

_FORMAT = 1
"""Part of the cache key: raised when the cached array changes its meaning."""

_AT_ONCE = 1 << 16
"""Random numbers that are drawn together."""

_FEW = 256
"""So many documents or fewer are gone through one by one, and not sample by sample together."""


def build_sentence_map(
    sequence_lengths: Int32[np.ndarray, "sequences"],
    document_indices: Int64[np.ndarray, "documents+1"],
    split: range,
    *,
    length: int,
    num_samples: int | None,
    short_probability: float,
    least_sentences: int,
    seed: int,
) -> UInt[np.ndarray, "samples 3"]:
    """The first sentence of each sample, that after its last, and the tokens that it may have.

    Args:
        sequence_lengths: Tokens in each sentence of the whole dataset.
        document_indices: The first sentence of each document, then the number of sentences.
        split: The consecutive documents that belong to the split.
        length: Tokens of a sample without special tokens; at least 2.
        num_samples: At least so many samples, in whole epochs; None: one epoch.
        short_probability: Of a sample that is shorter.
        least_sentences: 1, or 2 for pairs.
        seed: Of lengths and order.

    Raises:
        EmptyPartError: the split has no document from which a sample could be made.
    """
    documents = document_indices[split.start : split.stop + 1]
    usual = _Usual(sequence_lengths, documents, length, least_sentences)
    if not len(usual.first):
        raise EmptyPartError(_nothing(usual, split, least_sentences))
    ratio = int(np.floor(1 / short_probability + 0.5)) if short_probability > 0 else 0
    draws = _Draws(seed, ratio, length)
    dtype = np.uint64 if len(sequence_lengths) > np.iinfo(np.uint32).max else np.uint32
    epochs, count = [], 0
    while not epochs or (num_samples is not None and count < num_samples):
        epochs.append(_epoch(usual, draws, dtype))
        count += len(epochs[-1])
    samples = np.concatenate(epochs)
    del epochs
    return samples[shuffled(len(samples), seed + 1)]


def _nothing(usual: "_Usual", split: range, least_sentences: int) -> str:
    several = f"{least_sentences} sentences or more" if least_sentences > 1 else "any sentence"
    if not usual.too_long:
        return (
            f"The split has no document with {several} (documents {split.start} to {split.stop}); sentences "
            "are told apart by `mjx data build --split-sentences`."
        )
    return (
        f"The split has no document with {several} (documents {split.start} to {split.stop}): "
        f"{usual.too_long} are left out for a sentence of more than {LONGEST_SENTENCE} tokens. Do the text's "
        "sentences end?"
    )


class _Usual:
    """The samples of an epoch if all have the usual length, and of every sentence where a sample ends that
    begins with it.

    A sample draws one number when it begins, and each document one more at its end, of which nothing comes:
    these are numbered through the epoch.
    """

    def __init__(
        self,
        sequence_lengths: Int32[np.ndarray, "sequences"],
        documents: Int64[np.ndarray, "documents+1"],
        length: int,
        least: int,
    ) -> None:
        self.length, self.least = length, least
        base, stop = int(documents[0]), int(documents[-1])
        self.base = base
        lengths = sequence_lengths[base:stop]
        self.tokens = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=self.tokens[1:], dtype=np.int64)
        first, end = documents[:-1] - base, documents[1:] - base
        long_before = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths > LONGEST_SENTENCE, out=long_before[1:])
        too_long = (long_before[end] > long_before[first]) & (end - first > 1)
        del long_before
        self.too_long = int(too_long.sum())
        used = (end - first >= least) & ~too_long
        self.first, self.end = first[used], end[used]
        """Of each document that is used, the first sentence, and that after the last."""
        self.ends = self._ends(first, end)
        marked = self._begins()
        self.begins = np.flatnonzero(marked)
        """The first sentence of each sample."""
        self.sample_of_sentence = np.cumsum(marked)
        self.sample_of_sentence -= 1
        self.sample_of_document = self.sample_of_sentence[self.first]
        """The first sample of each document."""
        self.sample_of_sentence[~marked] = -1
        """The sample that begins with a sentence; -1 where none does."""
        del marked
        sizes = np.diff(self.sample_of_document, append=len(self.begins))
        self.numbers = np.arange(len(self.begins)) + np.repeat(np.arange(len(self.first)), sizes)
        """Which of the epoch's numbers each sample draws."""
        self.draws = len(self.begins) + len(self.first)
        """All that are drawn in an epoch."""
        ends = np.minimum(self.ends[self.begins], np.repeat(self.end, sizes) - 1)
        self.may_end_sooner = np.zeros(self.draws, bool)
        """Of each number, whether a shorter sample that draws it could end at another sentence."""
        self.may_end_sooner[self.numbers] = ends - self.begins > least

    def _ends(
        self, first: Int64[np.ndarray, "documents"], end: Int64[np.ndarray, "documents"]
    ) -> Int64[np.ndarray, "sentences"]:
        """A sample ends with the sentence that makes it long enough, unless that leaves its document a
        single one or none."""
        last = np.repeat(end, end - first)
        ends = np.empty(len(last), np.int64)
        step = 1 << 20  # so that the temporaries stay small
        for begin in range(0, len(ends), step):
            some = np.arange(begin, min(begin + step, len(ends)))
            reached = np.searchsorted(self.tokens, self.tokens[some] + self.length, side="left")
            reached = np.maximum(reached, some + self.least)
            stop = last[some]
            ends[some] = np.where(reached <= stop - 2, reached, stop)
        return ends

    def _begins(self) -> Bool[np.ndarray, "sentences"]:
        """Whether a sample begins with a sentence."""
        begins = np.zeros(len(self.ends), bool)
        place, end = self.first, self.end
        while len(place) > _FEW:
            begins[place] = True
            place = self.ends[place]
            more = place < end
            place, end = place[more], end[more]
        ends = self.ends.data
        for sentence, stop in zip(place.tolist(), end.tolist(), strict=True):
            chain = []
            while sentence < stop:
                chain.append(sentence)
                sentence = ends[sentence]
            begins[chain] = True
        return begins


class _Draws:
    """The stream of random numbers, from the beginning of an epoch on."""

    def __init__(self, seed: int, ratio: int, length: int) -> None:
        self.ratio, self.length = ratio, length
        self._stream: Iterator = raw_numbers(seed, _AT_ONCE)
        self.known = 0
        """As many of the epoch's numbers are known."""
        self.short: list[int] = []
        """Which numbers make samples short, as far as they were asked for."""
        self.lengths: list[int] = []
        """The tokens of each of these."""

    def ask(self, end: int) -> None:
        """Knows the short ones of the epoch's numbers up to `end`."""
        while self.known <= end and self.ratio:
            numbers = next(self._stream)
            short = np.flatnonzero(numbers % self.ratio == 0)
            self.short += (short + self.known).tolist()
            self.lengths += (2 + numbers[short] % (self.length - 1)).tolist()
            self.known += len(numbers)

    def lengths_of(self, numbers: Int64[np.ndarray, "samples"]) -> Int64[np.ndarray, "samples"]:
        """The tokens that samples with these of the epoch's numbers, which rise, may have."""
        self.ask(int(numbers[-1]))
        lengths = np.full(len(numbers), self.length, np.int64)
        short = np.array(self.short, np.int64)
        place = np.minimum(np.searchsorted(numbers, short), len(numbers) - 1)
        found = numbers[place] == short
        lengths[place[found]] = np.array(self.lengths, np.int64)[found]
        return lengths

    def end_epoch(self, count: int) -> None:
        """The next epoch begins after so many numbers."""
        known = bisect.bisect_left(self.short, count)
        self.short = [place - count for place in self.short[known:]]
        self.lengths = self.lengths[known:]
        self.known -= count


def _epoch(usual: _Usual, draws: _Draws, dtype: type[np.unsignedinteger]) -> UInt[np.ndarray, "samples 3"]:
    """The samples of the next epoch, in the order of the text."""
    known: list[tuple[int, int, int]] = []  # from and to which usual sample, and how many numbers later
    others: list[tuple[int, int, int]] = []  # number that is drawn, first sentence, end
    ends, tokens, stops = usual.ends.data, usual.tokens.data, usual.end.data
    usual_sample, usual_numbers = usual.sample_of_sentence.data, usual.numbers.data
    documents = usual.sample_of_document.data
    may_end_sooner = usual.may_end_sooner.tobytes()
    begun = later = place = 0
    draws.ask(usual.draws)
    short = draws.short
    while True:
        # The next number that makes a sample end sooner than usual.
        while place < len(short) and (draw := short[place] - later) < usual.draws:
            if may_end_sooner[draw]:
                break
            place += 1
        else:
            break
        sample = bisect.bisect_left(usual_numbers, draw)
        known.append((begun, sample, later))
        document = bisect.bisect_right(documents, sample) - 1
        stop, sentence, number = stops[document], int(usual.begins[sample]), draw + later
        while True:
            if number >= draws.known:
                draws.ask(number)
            if place < len(short) and short[place] == number:
                enough = tokens[sentence] + draws.lengths[place]
                end = bisect.bisect_left(tokens, enough, sentence + usual.least, stop - 1)
                if end > stop - 2:
                    end = stop
                place += 1
            else:
                end = ends[sentence]
            others.append((number, sentence, end))
            number += 1
            sentence = end
            if sentence == stop:
                number += 1
                begun = documents[document + 1] if document + 1 < len(documents) else len(usual.begins)
                break
            if usual_sample[sentence] >= 0:
                begun = usual_sample[sentence]
                break
        later = number - (usual_numbers[begun] if begun < len(usual.begins) else usual.draws)
        draws.ask(usual.draws + later)
        while place < len(short) and short[place] < number:  # drawn at the end of a document
            place += 1
    known.append((begun, len(usual.begins), later))
    first, last, shift = np.array(known, np.int64).T
    sizes = last - first
    same = np.arange(sizes.sum()) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
    numbers, begins = usual.numbers[same] + np.repeat(shift, sizes), usual.begins[same]
    samples = np.empty((len(same) + len(others), 3), dtype)
    if others:
        drawn, first, end = np.array(others, np.int64).T
        order = np.argsort(np.concatenate([numbers, drawn]), kind="stable")
        numbers = np.concatenate([numbers, drawn])[order]
        samples[:, 0] = np.concatenate([begins, first])[order] + usual.base
        samples[:, 1] = np.concatenate([usual.ends[begins], end])[order] + usual.base
    else:
        samples[:, 0], samples[:, 1] = begins + usual.base, usual.ends[begins] + usual.base
    samples[:, 2] = draws.lengths_of(numbers)
    draws.end_epoch(usual.draws + later)
    return samples


def load_sentence_map(
    dataset: IndexedDataset,
    split: range,
    cache_dir: str | os.PathLike[str],
    *,
    length: int,
    num_samples: int | None,
    short_probability: float,
    least_sentences: int,
    seed: int,
    timeout: float = 3600.0,
) -> UInt[np.ndarray, "samples 3"]:
    """`build_sentence_map` through a cache: built by the first process that asks, mapped into memory by
    all."""
    choices = {
        "length": length,
        "num_samples": num_samples,
        "short_probability": short_probability,
        "least_sentences": least_sentences,
        "seed": seed,
    }
    key = {"format": _FORMAT, "dataset": dataset.identity(), "split": [split.start, split.stop], **choices}

    def build() -> dict[str, np.ndarray]:
        dataset.verify()
        lengths, documents = dataset.sequence_lengths, dataset.document_indices
        return {"samples": build_sentence_map(lengths, documents, split, **choices)}

    return cached_arrays(cache_dir, "sentences", key, ["samples"], build, timeout)["samples"]
