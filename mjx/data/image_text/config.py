"""What the kinds of data whose pictures come with texts have in common."""

import dataclasses
from collections.abc import Mapping, Sequence

from mjx.data.image_text.told import ToldPictures, open_told
from mjx.data.images.config import PicturesConfig
from mjx.data.images.decode import pillow
from mjx.data.text import SourceConfig, ValidationConfig
from mjx.data.tokenizers import Tokenizer, load_tokenizer
from mjx.errors import InputError
from mjx.files import LocalPath


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToldSourceConfig(SourceConfig):
    """Pictures and what is told of them."""

    path: LocalPath
    """A folder of pictures, each beside a `.txt` or `.json` of its name; `.parquet`, `.jsonl`, `.json`,
    `.csv` or `.tsv` files; or `.tar` files."""
    pictures: LocalPath | None = None
    """Where the paths in tables are from; null: where the table is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToldValidationConfig(ValidationConfig):
    """A validation set with files of its own, which are read whole."""

    sources: tuple[ToldSourceConfig, ...]
    """All of their samples once, spread evenly; so weights are left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToldConfig(PicturesConfig):
    """Pictures with texts."""

    sources: tuple[ToldSourceConfig, ...]
    """Folders, tables or `.tar` files, blended by their weights."""
    validation: Mapping[str, ToldValidationConfig] = dataclasses.field(default_factory=dict)
    """Validation sets with sources of their own, instead of the split's valid part, by name: `{NAME:
    {sources: [{path: …}]}}`. Each has a loss, `validation_loss/NAME`."""
    text_key: str = "caption"
    """In tables, and in `.json` files beside pictures: the column of a caption, or of a list of them."""
    tokenizer: LocalPath | None = None
    """A tokenizer.json, *.model or *.tiktoken file, a folder with one, or "byte"."""

    def opened(
        self, vocabulary: int | None
    ) -> tuple[tuple[ToldPictures, ...], dict[str, tuple[ToldPictures, ...]], Tokenizer, int]:
        """Sources, validation sets, tokenizer, and what token ids must be below."""
        pillow()
        if self.tokenizer is None:
            raise InputError("data.tokenizer = null: rows have texts, so name the tokenizer that reads them.")
        tokenizer = load_tokenizer(self.tokenizer)
        sizes = [tokenizer.vocab_size, *([] if vocabulary is None else [vocabulary])]
        validation = {name: self._open(chosen.sources) for name, chosen in self.validation.items()}
        return self._open(self.sources), validation, tokenizer, min(sizes)

    def _open(self, sources: Sequence[ToldSourceConfig]) -> tuple[ToldPictures, ...]:
        return tuple(
            open_told(source.path, source.pictures, self.image_key, self.text_key, self.cache_dir)
            for source in sources
        )
