"""Pictures for a model that says of which class a picture is, or a number: classification."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Int, Int64, Shaped

from mjx.batch import BatchArray, BatchArrays
from mjx.data.dataset import Batch, Dataset
from mjx.data.images.config import PicturesConfig
from mjx.data.images.decode import pillow
from mjx.data.images.prepare import AugmentationConfig
from mjx.data.images.rows import PictureRows
from mjx.data.images.sources import Pictures, classes_of, is_there, open_pictures
from mjx.data.images.splits import Broken, PictureSplits
from mjx.data.text import SourceConfig
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledPicturesConfig(PicturesConfig):
    """Pictures with labels. A folder is one of folders, whose names are the classes."""

    kind: ClassVar[str] = "images"

    label_key: str = "label"
    """In tables: the column of its label."""
    classes: tuple[str, ...] | None = None
    """The labels in the order of their numbers; null: those that the sources have; []: labels are numbers,
    which are learned as such."""

    @property
    def labels(self) -> tuple[str, ...]:
        if self.classes is not None:
            return self.classes
        there = all(is_there(source.path) for source in self.sources)
        if not there:  # a plan is made where there are no data
            return ()
        return classes_of(self._pictures)

    def arrays(self, rows: int) -> BatchArrays:
        shape, axes = (rows, *self.image.shape), ("batch", "channels", "height", "width")
        dtypes = {"labels": "float32" if self.classes == () else "int32", "loss_mask": "float32"}
        return {"images": BatchArray(shape=shape, dtype="float32", axes=axes)} | {
            name: BatchArray(shape=(rows,), dtype=dtype, axes=("batch",)) for name, dtype in dtypes.items()
        }

    def open(self, vocabulary: int | None = None) -> "LabelledSplits":
        pillow()
        sources = self._pictures
        validation = {name: self._open(chosen.sources) for name, chosen in self.validation.items()}
        classes = classes_of(sources) if self.classes is None else self.classes
        return LabelledSplits(
            config=self, sources=sources, validation_sources=validation, broken=Broken(), classes=classes
        )

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
        if self.classes is not None and (
            len(set(self.classes)) != len(self.classes) or len(self.classes) == 1
        ):
            raise InputError(f"classes = {list(self.classes)} must be two or more, each once; or [].")


CONFIG = LabelledPicturesConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledSplits(PictureSplits[Pictures]):
    """The opened sources of a `LabelledPicturesConfig`."""

    config: LabelledPicturesConfig
    classes: tuple[str, ...]

    def samples(
        self,
        source: Pictures,
        rows: Int64[np.ndarray, "rows"],
        num_samples: int | None,
        augment: AugmentationConfig | None,
        number: int,
    ) -> Dataset:
        return LabelledPictures(
            source,
            rows,
            self._numbers(source, rows),
            num_samples,
            config=self.config,
            augment=augment,
            broken=self.broken,
            number=number,
        )

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


class LabelledPictures(PictureRows):
    """Pictures and their labels."""

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
        """As `PictureRows`, with the labels of the rows."""
        super().__init__(
            pictures, rows, num_samples, config=config, augment=augment, broken=broken, number=number
        )
        self.labels = labels

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        images, found, mask = self.images(samples)
        return {"images": images, "labels": self.labels[found], "loss_mask": mask}
