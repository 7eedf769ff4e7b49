"""Pictures for a model that says of which class a picture is, or a number: classification."""

import dataclasses
import functools
import logging
import math
import threading
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int64, Shaped

from mjx.batch import BatchArray, BatchArrays
from mjx.data.config import DatasetConfig
from mjx.data.dataset import Batch, Dataset, blended
from mjx.data.images.decode import BrokenPictureError, decoded, pillow
from mjx.data.images.prepare import AugmentationConfig, PreparationConfig
from mjx.data.images.protocol import PictureProcessor
from mjx.data.images.sources import Pictures, classes_of, is_there, open_pictures
from mjx.data.pairs.order import row_order
from mjx.data.splits import WITHOUT_VALIDATION, EmptyPartError, Split, split_range
from mjx.data.text import SourceConfig, ValidationConfig
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledPicturesConfig(DatasetConfig):
    """Pictures with labels; `split` divides each source's in an order that `seed` draws."""

    kind: ClassVar[str] = "images"

    sources: tuple[SourceConfig, ...]
    """Folders of folders (whose names are the classes), tables (`.parquet`, `.jsonl`, `.csv`, `.tsv`) or
    `.tar` files, blended by their weights."""
    validation: Mapping[str, ValidationConfig] = dataclasses.field(default_factory=dict)
    """Validation sets with sources of their own, instead of the split's valid part, by name: `{NAME:
    {sources: [{path: …}]}}`. Each has a loss, `validation_loss/NAME`."""
    image_key: str = "image"
    """In tables: the column of a picture's path, or of its bytes."""
    label_key: str = "label"
    """In tables: the column of its label."""
    classes: tuple[str, ...] | None = None
    """The labels in the order of their numbers; null: those that the sources have; []: labels are numbers,
    which are learned as such."""
    image: PreparationConfig = PreparationConfig()
    """How pictures become arrays: size, crop, mean."""
    augment: AugmentationConfig | None = None
    """Chance in training, drawn anew for every sample; null: there is none."""

    @property
    def labels(self) -> tuple[str, ...]:
        if self.classes is not None:
            return self.classes
        there = all(is_there(source.path) for source in self.sources)
        if not there:  # a plan is made where there are no data
            return ()
        return classes_of(self._pictures)

    @property
    def picture_processor(self) -> PictureProcessor:
        return self.image

    def arrays(self, rows: int) -> BatchArrays:
        shape, axes = (rows, *self.image.shape), ("batch", "channels", "height", "width")
        dtypes = {"labels": "float32" if self.classes == () else "int32", "loss_mask": "float32"}
        return {"images": BatchArray(shape=shape, dtype="float32", axes=axes)} | {
            name: BatchArray(shape=(rows,), dtype=dtype, axes=("batch",)) for name, dtype in dtypes.items()
        }

    def open(self, vocabulary: int | None = None) -> "PictureSplits":
        pillow()
        sources = self._pictures
        validation = {name: self._open(chosen.sources) for name, chosen in self.validation.items()}
        classes = classes_of(sources) if self.classes is None else self.classes
        return PictureSplits(self, classes, sources, validation, Broken())

    @functools.cached_property
    def _pictures(self) -> tuple[Pictures, ...]:
        """Of the sources, which are walked through once."""
        return self._open(self.sources)

    def _open(self, sources: Sequence[SourceConfig]) -> tuple[Pictures, ...]:
        return tuple(
            open_pictures(source.path, self.image_key, self.label_key, self.cache_dir) for source in sources
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise InputError("sources = [] has no picture; name a folder, a table or .tar files.")
        if self.classes is not None and (
            len(set(self.classes)) != len(self.classes) or len(self.classes) == 1
        ):
            raise InputError(f"classes = {list(self.classes)} must be two or more, each once; or [].")
        if "" in self.validation:
            raise InputError(f"validation = {list(self.validation)} has a set without a name.")


CONFIG = LabelledPicturesConfig


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

    def __len__(self) -> int:
        return len(self._places)


@dataclasses.dataclass(frozen=True)
class PictureSplits:
    """The opened sources of a `LabelledPicturesConfig`."""

    config: LabelledPicturesConfig
    classes: tuple[str, ...]
    sources: tuple[Pictures, ...]
    validation_sources: Mapping[str, tuple[Pictures, ...]]
    broken: Broken
    tokenizer: None = None
    vocab_size: None = None

    def dataset(self, split: Split, num_samples: int | None = None) -> Dataset:
        """As `Splits.dataset`; the sources are blended by their weights.

        Raises:
            InputError: the split is empty, or a label is no class.
        """
        weights = [source.weight for source in self.config.sources]

        def rows(pictures: Pictures) -> Int64[np.ndarray, "rows"]:
            some = split_range(self.config.split, split, len(pictures))
            return np.random.RandomState(self.config.seed).permutation(len(pictures))[some.start : some.stop]

        return self._blend(self.sources, weights, rows, num_samples, augmented=split == "train")

    def validation(self) -> dict[str, Dataset]:
        """As `Splits.validation`."""
        if not self.validation_sources:
            return {"": self.dataset("valid")}
        return {
            name: self._blend(sources, [1.0] * len(sources), lambda pictures: np.arange(len(pictures)), None)
            for name, sources in self.validation_sources.items()
        }

    def remarks(self) -> tuple[str, ...]:
        """As `Splits.remarks`."""
        if not len(self.broken):
            return ()
        count, times = len(self.broken), self.broken.times
        found = "1 picture" if count == 1 else f"{count} pictures"
        return (f"{found} could not be read, and left out {times} {'time' if times == 1 else 'times'}",)

    def _blend(self, sources, weights, rows, num_samples: int | None, *, augmented: bool = False) -> Dataset:
        def samples_of(number: int):
            def of(size: int | None) -> Dataset:
                pictures = sources[number]
                some = rows(pictures)
                return LabelledPictures(
                    pictures,
                    some,
                    self._numbers(pictures, some),
                    size,
                    config=self.config,
                    augment=self.config.augment if augmented else None,
                    broken=self.broken,
                    number=number,
                )

            return of

        makers = [samples_of(number) for number in range(len(sources))]
        try:
            return blended(makers, weights, num_samples, self.config.cache_dir)
        except EmptyPartError as error:
            sentence = str(error).replace("document", "picture")
            raise EmptyPartError(f"{sentence} {WITHOUT_VALIDATION}.") from error

    def _numbers(self, pictures: Pictures, rows: Int64[np.ndarray, "rows"]) -> Shaped[np.ndarray, "rows"]:
        """What the labels of some pictures are to the model."""
        known = {name: number for number, name in enumerate(self.classes)}
        found = []
        for row in rows.tolist():
            name, place = pictures.labels[row], pictures.places[row]
            if known and name not in known:
                raise InputError(
                    f'{place}: the label "{name}" is none of data.classes = {list(self.classes)}.'
                )
            found.append(known[name] if known else _number(name, place))
        return np.array(found, np.int32 if known else np.float32)


def _number(text: str, place: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f'{place}: the label "{text}" is no number; where labels are classes, data.classes names them, '
            "or is null."
        )
    return number


class LabelledPictures(Dataset):
    """Pictures in an order drawn anew in every epoch. In training the next one that can be read stands for
    one that cannot; in a set that is read once, such a row has no weight."""

    def __init__(
        self,
        pictures: Pictures,
        rows: Int64[np.ndarray, "rows"],
        labels: Shaped[np.ndarray, "rows"],
        num_samples: int | None,
        *,
        config: LabelledPicturesConfig,
        augment: AugmentationConfig | None,
        broken: Broken,
        number: int,
    ) -> None:
        """Args:
        pictures: Of the source.
        rows: Those of the split.
        labels: Of these rows.
        num_samples: So many, over as many epochs as it takes; None: every picture once.
        config: How they are made ready.
        augment: By which chance.
        broken: Where pictures are counted that cannot be read.
        number: Of the source among those of the blend.
        """
        self.pictures, self.rows, self.labels = pictures, rows, labels
        self.config, self.augment, self.broken, self.number = config, augment, broken, number
        self.replaces = num_samples is not None
        self.order = row_order(np.zeros(len(rows), np.int64), num_samples, config.seed)

    def __len__(self) -> int:
        return len(self.order)

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        shape = (len(samples), *self.config.image.shape)
        images, found = np.zeros(shape, np.float32), np.zeros(len(samples), np.int64)
        mask = np.ones(len(samples), np.float32)
        for row, sample in enumerate(np.asarray(samples).tolist()):
            found[row] = first = int(self.order[sample])
            for next_one in range(len(self.rows) if self.replaces else 1):
                found[row] = (first + next_one) % len(self.rows)
                image = self._read(int(found[row]), sample)
                if image is not None:
                    images[row] = image
                    break
            else:
                mask[row] = 0.0
        if self.replaces and not mask.all():
            raise InputError(f"{self.pictures.path}: none of {len(self.rows)} pictures can be read.")
        return {"images": images, "labels": self.labels[found], "loss_mask": mask}

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0

    def _read(self, row: int, sample: int) -> np.ndarray | None:
        """None: it cannot be read."""
        picture, config = int(self.rows[row]), self.config
        try:
            image = decoded(self.pictures.content(picture), config.image.channels)
        except (BrokenPictureError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self.broken.add(self.pictures.places[picture], why or str(error))
            return None
        return config.image(image, self.augment, (config.seed, self.number, sample))
