"""Which tokens make up a sample: the document, sample and shuffle index of Megatron-Core's GPTDataset.

The documents of a split are repeated for as many epochs as the samples need, shuffled, and laid end to end;
the stream is cut every `sequence_length` tokens, and the pieces are shuffled again. All three arrays equal
those of Megatron-Core 0.16.1, bit for bit, so that a run can change over and see the same samples.
"""

import dataclasses
import os

import numpy as np
from jaxtyping import Int, Int32, Integer

from mjx.data.cache import cached_arrays
from mjx.data.indexed import IndexedDataset
from mjx.data.splits import EmptyPartError

_FORMAT = 1
"""Part of the cache key: raised when the cached arrays change their meaning."""

_LAST_EPOCH_THRESHOLD = 0.80
"""A last epoch of which less than this is used is shuffled apart from those before it."""


@dataclasses.dataclass(frozen=True)
class GPTIndex:
    document_index: Int32[np.ndarray, "documents"]
    """The sequences of the split, in the order in which they are laid end to end."""
    sample_index: Int[np.ndarray, "samples+1 2"]
    """Where each sample starts: (position in `document_index`, offset in tokens); the next row: its end."""
    shuffle_index: Integer[np.ndarray, "samples"]
    """Sample id → row of `sample_index`."""

    @property
    def num_samples(self) -> int:
        return len(self.shuffle_index)


def build_gpt_index(
    sequence_lengths: Int32[np.ndarray, "sequences"],
    split: range,
    *,
    sequence_length: int,
    num_samples: int | None,
    seed: int,
    add_extra_token: bool = True,
    drop_last_partial: bool = True,
) -> GPTIndex:
    """Builds the index of the sequences in `split`.

    One epoch of fewer tokens than a sample has makes one sample, which is filled up.

    Args:
        sequence_lengths: Tokens in each sequence of the whole dataset.
        split: The consecutive sequences that belong to the split.
        sequence_length: Tokens of a sample, without the extra one.
        num_samples: At least so many samples, over as many epochs as it takes; None: one epoch.
        seed: Of the shuffles.
        add_extra_token: Samples overlap by one token, the label of their last position.
        drop_last_partial: Leave out the rest of the stream which does not fill a sample.

    Raises:
        EmptyPartError: the split has no token, or one epoch has no second one to predict.
    """
    extra = int(add_extra_token)
    lengths = sequence_lengths[split.start : split.stop]
    tokens = int(lengths.sum(dtype=np.int64))
    if tokens == 0 or (num_samples is None and tokens <= extra):
        raise EmptyPartError(
            f"The split has {tokens or 'no'} token{'' if tokens == 1 else 's'} (documents {split.start} to "
            f"{split.stop}): nothing to predict."
        )
    epochs = 1 if num_samples is None else max(1, -(-(num_samples * sequence_length + extra) // tokens))
    count = (epochs * tokens - extra) // sequence_length
    if not drop_last_partial or not count:
        count = -(-(epochs * tokens - extra) // sequence_length)
    before_last = ((epochs - 1) * tokens - extra) // sequence_length
    per_epoch = (tokens - extra) // sequence_length
    separate_last = (
        epochs > 1
        and num_samples is not None
        and num_samples - before_last < int(_LAST_EPOCH_THRESHOLD * per_epoch)
    )

    random = np.random.RandomState(seed)
    document_index = _document_index(split, epochs, separate_last, random)
    dtype = (
        np.int32
        if max(len(document_index), int(sequence_lengths.max())) <= np.iinfo(np.int32).max
        else np.int64
    )
    sample_index = _sample_index(sequence_lengths, document_index, sequence_length, count, extra, dtype)
    shuffle_index = _shuffle_index(before_last if separate_last else count, count, random)
    return GPTIndex(document_index, sample_index, shuffle_index)


def _document_index(
    split: range, epochs: int, separate_last: bool, random: np.random.RandomState
) -> Int32[np.ndarray, "documents"]:
    documents = np.arange(split.start, split.stop, dtype=np.int32)
    together = np.tile(documents, epochs - 1 if separate_last else epochs)
    random.shuffle(together)
    if not separate_last:
        return together
    random.shuffle(documents)
    return np.concatenate([together, documents])


def _sample_index(
    sequence_lengths: Int32[np.ndarray, "sequences"],
    document_index: Int32[np.ndarray, "documents"],
    sequence_length: int,
    count: int,
    extra: int,
    dtype: type[np.signedinteger],
) -> Int[np.ndarray, "samples+1 2"]:
    """The documents and offsets at which the stream is cut.

    Megatron walks along the documents; a cut is in the document that holds the last token of the sample
    before it (with an extra token, that is the first token of the sample after it), so all cuts are found by
    one search in the running sum of the lengths.
    """
    ends = sequence_lengths[document_index].astype(np.int64)
    np.cumsum(ends, out=ends)
    index = np.zeros((count + 1, 2), dtype)
    step = 1 << 20  # so that the int64 temporaries stay small beside the index
    for first in range(1, count + 1, step):
        stop = min(first + step, count + 1)
        # The last sample may be partial: then the stream's end is its end.
        last_token = np.minimum(np.arange(first, stop, dtype=np.int64) * sequence_length + extra, ends[-1])
        document = np.searchsorted(ends, last_token, side="left")
        start = ends[document] - sequence_lengths[document_index[document]]
        index[first:stop, 0] = document
        index[first:stop, 1] = last_token - extra - start
    return index


def _shuffle_index(first: int, total: int, random: np.random.RandomState) -> Integer[np.ndarray, "samples"]:
    index = np.arange(total, dtype=np.uint32 if total < np.iinfo(np.uint32).max - 1 else np.int64)
    random.shuffle(index[:first])
    if first < total:
        random.shuffle(index[first:])
    return index


def load_gpt_index(
    dataset: IndexedDataset,
    split: range,
    cache_dir: str | os.PathLike[str],
    *,
    sequence_length: int,
    num_samples: int | None,
    seed: int,
    add_extra_token: bool = True,
    drop_last_partial: bool = True,
    timeout: float = 3600.0,
) -> GPTIndex:
    """`build_gpt_index` through a cache: built by the first process that asks, mapped into memory by all.

    The key is all that the arrays depend on, with the lengths of the documents but not their path: a dataset
    may move, and a dataset that changed is another one.
    """
    choices = {
        "sequence_length": sequence_length,
        "num_samples": num_samples,
        "seed": seed,
        "add_extra_token": add_extra_token,
        "drop_last_partial": drop_last_partial,
    }
    key = {"format": _FORMAT, "dataset": dataset.identity(), "split": [split.start, split.stop], **choices}

    def build() -> dict[str, np.ndarray]:
        dataset.verify()
        return vars(build_gpt_index(dataset.sequence_lengths, split, **choices))

    names = [field.name for field in dataclasses.fields(GPTIndex)]
    return GPTIndex(**cached_arrays(cache_dir, "gpt", key, names, build, timeout))
