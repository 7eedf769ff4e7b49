"""What a recipe says about its data, whatever its kind."""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mjx.batch import BatchArrays
from mjx.data.splits import parse_split
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError
from mjx.files import LocalPath
from mjx.parse import Tag

if TYPE_CHECKING:  # the blocks load JAX
    from mjx.data.images.protocol import PictureProcessor
    from mjx.models.common.pictures.sight import Sight

KINDS = {
    "gpt": "mjx.data.gpt",
    "bert": "mjx.data.masked.tokens",
    "t5": "mjx.data.masked.spans",
    "seq2seq": "mjx.data.pairs.written",
    "classify": "mjx.data.pairs.labelled",
    "contrastive": "mjx.data.pairs.contrasted",
    "images": "mjx.data.images.labelled",
    "captions": "mjx.data.image_text.captions",
    "image_text": "mjx.data.image_text.answered",
}
"""Kind of dataset → its package or module, whose `CONFIG` is its config class."""


def load_kind(name: str) -> type["DatasetConfig"]:
    """The config class of a kind in `KINDS`."""
    return importlib.import_module(KINDS[name]).CONFIG


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What every kind of dataset has; a kind adds its files, and how samples are made of them."""

    tag: ClassVar[Tag] = Tag("kind", KINDS, lambda name: (load_kind(name), {}), default="gpt")
    kind: ClassVar[str]
    """Its name in `KINDS`."""

    split: str = "969,30,1"
    """The shares of train, valid and test, applied to the documents of each source in order."""
    seed: int = 1234
    """Of the order of documents and samples."""
    cache_dir: LocalPath = "data-cache"
    """Where indices and prepared corpora are kept; on a cluster, a folder that all hosts see."""
    prefetch: int = 2
    """Steps read ahead in the background; 0 reads each when it is asked for."""
    threads: int = 1
    """Threads that read ahead, each a step of its own."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes that rows are of; none where they have no classes."""
        return ()

    @property
    def picture_processor(self) -> "PictureProcessor | None":
        """How pictures are made ready for the model; None where there are none."""
        return None

    def seen_by(self, sight: "Sight | None") -> Self:
        """These data, for a model in whose texts pictures stand so; None: in which none do.

        Raises:
            InputError: they are for the other kind of model, or their pictures do not fit it.
        """
        return self

    def start_token(self, tokenizer: Tokenizer | None, vocab_size: int) -> int | None:
        """What rows that a decoder writes by itself begin with; None: there are none.

        Raises:
            InputError: neither the config nor the tokenizer says it.
        """
        return None

    def prompts(self, tokenizer: Tokenizer, texts: Sequence[str], vocab_size: int) -> list[list[int]]:
        """The tokens of texts that are to be read, continued or answered, as those that are learnt from."""
        return tokenizer.encode_prompts(texts)

    def arrays(self, rows: int) -> BatchArrays:
        """What a batch of so many rows has."""
        raise NotImplementedError(type(self))

    def open(self, vocabulary: int | None = None) -> Any:
        """Open the files: a `mjx.data.dataset.Splits`. Safe when many processes do it together.

        Args:
            vocabulary: A token id that is not below it is an error when it is read; None: the model's is not
                known, or it takes no tokens.

        Raises:
            InputError: a file is missing or damaged, or does not fit the config.
        """
        raise NotImplementedError(type(self))

    def __post_init__(self) -> None:
        parse_split(self.split)
        for name, least in (("prefetch", 0), ("threads", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} = {getattr(self, name)} must be at least {least}.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed = {self.seed} must be from 0 to {2**32 - 1}.")
