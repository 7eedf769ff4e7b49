"""Sources of pictures, opened: train, validation and test samples, and what becomes of broken pictures."""

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float, Int64

from mjx.data.dataset import Dataset, blended
from mjx.data.images.config import PicturesConfig
from mjx.data.images.decode import BrokenPictureError, decoded
from mjx.data.images.prepare import AugmentationConfig, PreparationConfig
from mjx.data.images.sources import StoredPictures
from mjx.data.splits import WITHOUT_VALIDATION, EmptyPartError, Split, split_range
from mjx.data.tokenizers import Tokenizer


class Broken:
    """The pictures of a run that could not be read: each is named once."""

    def __init__(self) -> None:
        self._places: set[str] = set()
        self._lock = threading.Lock()
        self.times = 0
        """How often something else had to stand for one."""

    def add(self, place: str, why: str) -> None:
        with self._lock:
            self.times += 1
            new = place not in self._places
            self._places.add(place)
        if new:
            logging.getLogger("mjx").warning("skipped a picture: %s: %s", place, why)

    def read(
        self,
        pictures: StoredPictures,
        number: int,
        image: PreparationConfig,
        augment: AugmentationConfig | None = None,
        seed: tuple[int, ...] = (),
    ) -> Float[np.ndarray, "channels height width"] | None:
        """A picture as the model sees it, by `image(picture, augment, seed)`; None, and it is counted: it
        cannot be read."""
        try:
            picture = decoded(pictures.content(number), image.channels)
        except (BrokenPictureError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self.add(pictures.places[number], why or str(error))
            return None
        return image(picture, augment, seed)

    def __len__(self) -> int:
        return len(self._places)


Source = TypeVar("Source", bound=Sized)


@dataclasses.dataclass(frozen=True)
class PictureSplits(Generic[Source]):
    """The opened sources of a `PicturesConfig`; a kind says how a source becomes samples."""

    config: PicturesConfig
    sources: tuple[Source, ...]
    validation_sources: Mapping[str, tuple[Source, ...]]
    broken: Broken
    tokenizer: Tokenizer | None = None
    vocab_size: int | None = None

    def samples(
        self,
        source: Source,
        rows: Int64[np.ndarray, "rows"],
        num_samples: int | None,
        augment: AugmentationConfig | None,
        number: int,
    ) -> Dataset:
        """Args:
        source: One of the sources.
        rows: Those of the split.
        num_samples: So many, over as many epochs as it takes; None: every one once.
        augment: By which chance.
        number: Of the source among those of the blend.
        """
        raise NotImplementedError(type(self))

    def dataset(self, split: Split, num_samples: int | None = None) -> Dataset:
        """As `Splits.dataset`; the sources are blended by their weights.

        Raises:
            InputError: the split is empty, or a sample does not fit the config.
        """
        weights = [source.weight for source in self.config.sources]

        def rows(source: Source) -> Int64[np.ndarray, "rows"]:
            some = split_range(self.config.split, split, len(source))
            return np.random.RandomState(self.config.seed).permutation(len(source))[some.start : some.stop]

        augment = self.config.augment if split == "train" else None
        return self._blend(self.sources, weights, rows, num_samples, augment)

    def validation(self) -> dict[str, Dataset]:
        """As `Splits.validation`."""
        if not self.validation_sources:
            return {"": self.dataset("valid")}
        return {
            name: self._blend(sources, [1.0] * len(sources), lambda source: np.arange(len(source)), None)
            for name, sources in self.validation_sources.items()
        }

    def remarks(self) -> tuple[str, ...]:
        """As `Splits.remarks`."""
        if not len(self.broken):
            return ()
        count, times = len(self.broken), self.broken.times
        found = "1 picture" if count == 1 else f"{count} pictures"
        return (f"{found} could not be read, and left out {times} {'time' if times == 1 else 'times'}",)

    def _blend(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        rows: Callable[[Source], Int64[np.ndarray, "rows"]],
        num_samples: int | None,
        augment: AugmentationConfig | None = None,
    ) -> Dataset:
        def samples_of(number: int) -> Callable[[int | None], Dataset]:
            source = sources[number]
            return lambda size: self.samples(source, rows(source), size, augment, number)

        makers = [samples_of(number) for number in range(len(sources))]
        try:
            return blended(makers, weights, num_samples, self.config.cache_dir)
        except EmptyPartError as error:
            sentence = str(error).replace("document", "picture")
            raise EmptyPartError(f"{sentence} {WITHOUT_VALIDATION}.") from error
