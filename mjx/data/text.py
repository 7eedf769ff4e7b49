"""What a recipe says about data that is made of text: where the tokens come from."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from mjx.bounds import check_scale
from mjx.data.config import DatasetConfig
from mjx.data.dataset import Dataset, Splits
from mjx.data.indexed import IndexedDataset
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError
from mjx.files import LocalPath


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One `.bin`/`.idx` pair of a blend."""

    path: LocalPath
    """The files' path without `.bin` and `.idx`."""
    weight: float = 1.0
    """Samples taken from it, in proportion to the other sources' weights."""

    def __post_init__(self) -> None:
        check_scale("weight", self.weight)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """A validation set with files of its own, which are read whole."""

    sources: tuple[SourceConfig, ...]
    """`.bin`/`.idx` pairs, all of their rows once, spread evenly; so weights are left out."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError("sources = [] gives the set nothing; name a file, or leave the set out.")
        weights = sorted({source.weight for source in self.sources})
        if len(weights) > 1:
            raise InputError(
                f"sources have the weights {weights}: a validation set has every row of its sources once, so "
                "leave them out, or make a set of each source."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(DatasetConfig):
    """Either `corpus` or `sources`; a kind of text says how samples are cut from the documents of one."""

    of_sentences: ClassVar[bool] = False
    """Whether the sequences of the `.idx` are the sentences of documents."""

    corpus: str | None = None
    """A text that comes with Python, prepared on first use: "python-docs"."""
    sources: tuple[SourceConfig, ...] = ()
    """`.bin`/`.idx` pairs, blended by their weights."""
    validation: Mapping[str, ValidationConfig] = dataclasses.field(default_factory=dict)
    """Validation sets with files of their own, instead of the split's valid part, by name: `{NAME: {sources:
    [{path: …}]}}`. Each has a loss, `validation_loss/NAME`."""
    tokenizer: LocalPath | None = None
    """A tokenizer.json, *.model or *.tiktoken file, a folder with one, or "byte". Null: trained on the
    corpus; with sources, none, and then vocab_size must be given."""
    vocab_size: int | None = None
    """Corpus: the size of the tokenizer that is trained on it (4096 when null). Sources: token ids must be
    below it (the tokenizer's when null), and below the model's."""

    def open_source(self, source: SourceConfig, tokenizer: Tokenizer | None) -> IndexedDataset:
        """The tokens of a source; a kind may make them of text first.

        Raises:
            InputError: a file is missing or damaged.
        """
        return IndexedDataset(source.path)

    def documents_in(self, source: IndexedDataset) -> int:
        """How many documents `split` is applied to: every sequence is one, where a kind does not say else."""
        return len(source)

    def samples(
        self,
        source: IndexedDataset,
        documents: range,
        num_samples: int | None,
        *,
        tokenizer: Tokenizer | None,
        vocab_size: int,
    ) -> Dataset:
        """The samples of some documents of a source.

        Args:
            source: The tokens.
            documents: Those of a split.
            num_samples: At least so many, over as many epochs as it takes; None: every sample once.
            tokenizer: Of the tokens, if it is known.
            vocab_size: A token id that is not below it is an error.
        """
        raise NotImplementedError(type(self))

    def open(self, vocabulary: int | None = None) -> Splits:
        from mjx.data.open import open_text

        return open_text(self, vocabulary)

    def __post_init__(self) -> None:
        if (self.corpus is None) == (not self.sources):
            raise InputError(
                f"corpus = {self.corpus} and sources = {[source.path for source in self.sources]}: give one "
                "of the two."
            )
        super().__post_init__()
        if self.vocab_size is not None and self.vocab_size < 1:
            raise InputError(f"vocab_size = {self.vocab_size} must be positive, or null.")
        if self.sources and self.tokenizer is None and self.vocab_size is None:
            raise InputError("tokenizer = null and vocab_size = null: sources need one of the two.")
        if "" in self.validation:
            raise InputError(f"validation = {list(self.validation)} has a set without a name.")
