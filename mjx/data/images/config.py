"""What the kinds of data have in common that are made of pictures: where they are, how they become arrays."""

import dataclasses
from collections.abc import Mapping

from mjx.data.config import DatasetConfig
from mjx.data.images.prepare import AugmentationConfig, PreparationConfig
from mjx.data.images.protocol import PictureProcessor
from mjx.data.text import SourceConfig, ValidationConfig
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PicturesConfig(DatasetConfig):
    """`split` divides each source's samples in an order that `seed` draws."""

    sources: tuple[SourceConfig, ...]
    """Folders, tables (`.parquet`, `.jsonl`, `.json`, `.csv`, `.tsv`) or `.tar` files, blended by their
    weights."""
    validation: Mapping[str, ValidationConfig] = dataclasses.field(default_factory=dict)
    """Validation sets with sources of their own, instead of the split's valid part, by name: `{NAME:
    {sources: [{path: …}]}}`. Each has a loss, `validation_loss/NAME`."""
    image_key: str = "image"
    """In tables: the column of a picture's path, or of its bytes."""
    image: PreparationConfig = PreparationConfig()
    """How pictures become arrays: size, crop, mean."""
    augment: AugmentationConfig | None = None
    """Chance in training, drawn anew for every sample; null: there is none."""

    @property
    def picture_processor(self) -> PictureProcessor:
        return self.image

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise InputError("sources = [] has no picture; name a folder, a table or .tar files.")
        if "" in self.validation:
            raise InputError(f"validation = {list(self.validation)} has a set without a name.")
