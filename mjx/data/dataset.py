"""What a dataset is to the loader, and the blend of several."""

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int, Shaped

from mjx.data.blend_index import blend_index, load_blend_index, normalize
from mjx.data.splits import EmptyPartError, Split
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError

Batch = dict[str, Shaped[np.ndarray, "batch ..."]]
"""The arrays that the kind's config says (`DatasetConfig.arrays`)."""


class Dataset(Protocol):
    """Samples with an order of their own; a batch is read at once, for the sake of speed."""

    def __len__(self) -> int:
        """How many samples there are."""
        ...

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        """The samples with these ids, each a row."""
        ...

    def widths(self, samples: Int[np.ndarray, "batch"]) -> Mapping[str, int]:
        """How long the rows of these samples are together, for arrays (batch, sequence) that may be shorter
        than the config says. What is not named is as long as it says."""
        return {}

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        """Take the weight in every loss from these rows of a batch, in place: they only fill it up."""
        ...


class Splits(Protocol):
    """The opened files of a `DatasetConfig`."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Of the text, where there is any."""
        ...

    @property
    def vocab_size(self) -> int | None:
        """A token id that is not below it is an error when it is read; None where there are none."""
        ...

    def dataset(self, split: Split, num_samples: int | None = None) -> Dataset:
        """The samples of one split: so many or a few more, over as many epochs as it takes; None: every
        sample once."""
        ...

    def validation(self) -> dict[str, Dataset]:
        """The validation sets by name, every sample once; the name of the split's valid part is empty."""
        ...

    def remarks(self) -> Sequence[str]:
        """Sentences about what has been read, for the end of a run: what was left out."""
        ...


SURPLUS = 0.005
"""The share of samples that a source is built with beyond its part of the blend, as Megatron builds it."""


def source_sizes(weights: Sequence[float], size: int) -> list[int]:
    """The samples that each source of a blend of `size` is built with; they decide its epochs and order."""
    shares = np.array(weights, np.float64)
    shares = (shares / shares.sum()).tolist()
    return [math.ceil(math.ceil(size * share) * (1 + SURPLUS)) for share in shares]


class BlendedDataset(Dataset):
    """Samples of several datasets, in proportion to weights, in Megatron's order."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        weights: Sequence[float],
        size: int,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        """Args:
        datasets: Each must have its share of the samples (see `source_sizes`).
        weights: Positive; only their proportions count.
        size: Samples to take.
        cache_dir: Where the order is kept; None: it is computed again.
        """
        self.datasets = tuple(datasets)
        shares = normalize(list(weights))
        self.dataset_index, self.sample_index = (
            blend_index(shares, size) if cache_dir is None else load_blend_index(shares, size, cache_dir)
        )
        taken = np.bincount(self.dataset_index, minlength=len(datasets))
        for number, (dataset, count) in enumerate(zip(datasets, taken, strict=True)):
            if count > len(dataset):
                raise InputError(
                    f"The blend takes {count} samples of source {number}, which has {len(dataset)}; "
                    "give it more epochs or less weight."
                )

    def __len__(self) -> int:
        return len(self.dataset_index)

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        return _scatter(self.datasets, self.dataset_index[samples], self.sample_index[samples])

    def widths(self, samples: Int[np.ndarray, "batch"]) -> Mapping[str, int]:
        return _widths(self.datasets, self.dataset_index[samples], self.sample_index[samples])

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        self.datasets[0].blank(batch, rows)


class InterleavedDataset(Dataset):
    """Every sample of several datasets once, spread evenly: for validation. (Not Megatron's order.)"""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = tuple(datasets)
        sizes = [len(dataset) for dataset in datasets]
        place = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
        order = np.argsort(place, kind="stable")
        self.dataset_index = np.repeat(np.arange(len(sizes)), sizes)[order]
        self.sample_index = np.concatenate([np.arange(size) for size in sizes])[order]

    def __len__(self) -> int:
        return len(self.dataset_index)

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        return _scatter(self.datasets, self.dataset_index[samples], self.sample_index[samples])

    def widths(self, samples: Int[np.ndarray, "batch"]) -> Mapping[str, int]:
        return _widths(self.datasets, self.dataset_index[samples], self.sample_index[samples])

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        self.datasets[0].blank(batch, rows)


def blended(
    sources: Sequence[Callable[[int | None], Dataset]],
    weights: Sequence[float],
    num_samples: int | None,
    cache_dir: str | os.PathLike[str] | None,
) -> Dataset:
    """Samples of every source that has any, in proportion to the weights, or every sample once. One that has
    none is left out, with a warning.

    Args:
        sources: Each makes its dataset of so many samples; of None, every sample once.
        weights: Of the sources.
        num_samples: At least so many; None: every sample once.
        cache_dir: Of `BlendedDataset`.

    Raises:
        EmptyPartError: all sources are empty.
    """
    sizes: list[int | None] = [num_samples]
    if len(sources) > 1:
        sizes = [None] * len(sources) if num_samples is None else [*source_sizes(weights, num_samples)]
    parts: list[Dataset] = []
    some: list[int] = []
    empty: list[EmptyPartError] = []
    for number, (source, size) in enumerate(zip(sources, sizes, strict=True)):
        try:
            parts.append(source(size))
            some.append(number)
        except EmptyPartError as error:
            empty.append(error)
    if not parts:
        raise empty[0]
    for error in empty:
        logging.getLogger("mjx").warning("%s It is left out of the blend.", error)
    if empty:  # the others' shares are larger without it
        sources, weights = [sources[number] for number in some], [weights[number] for number in some]
        return blended(sources, weights, num_samples, cache_dir)
    if len(parts) == 1:
        return parts[0]
    if num_samples is None:
        return InterleavedDataset(parts)
    return BlendedDataset(parts, weights, num_samples, cache_dir)


def _widths(
    datasets: Sequence[Dataset],
    dataset_index: Int[np.ndarray, "batch"],
    sample_index: Int[np.ndarray, "batch"],
) -> dict[str, int]:
    """The longest of each dataset's, where all of them say one."""
    parts = [
        datasets[number].widths(sample_index[dataset_index == number]) for number in np.unique(dataset_index)
    ]
    return {
        name: max(part[name] for part in parts) for name in parts[0] if all(name in part for part in parts)
    }


def _scatter(
    datasets: Sequence[Dataset],
    dataset_index: Int[np.ndarray, "batch"],
    sample_index: Int[np.ndarray, "batch"],
) -> Batch:
    batch: Batch = {}
    for number in np.unique(dataset_index):
        rows = np.flatnonzero(dataset_index == number)
        for name, values in datasets[number].read(sample_index[rows]).items():
            if name not in batch:
                batch[name] = np.empty((len(dataset_index), *values.shape[1:]), values.dtype)
            batch[name][rows] = values
    return batch
