"""The files of a text dataset, opened: train, validation and test samples of a corpus or of a blend."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence

from mjx.data.dataset import Dataset, blended
from mjx.data.indexed import IndexedDataset
from mjx.data.named_corpus import prepare_corpus
from mjx.data.splits import WITHOUT_VALIDATION, EmptyPartError, Split, parse_split, split_range
from mjx.data.text import TextConfig
from mjx.data.tokenizers import Tokenizer, load_tokenizer
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True)
class TextSplits:
    """The opened files of a `TextConfig`, from which the datasets of the splits are made."""

    config: TextConfig
    tokenizer: Tokenizer | None
    vocab_size: int
    """A token id that is not below it is an error when it is read."""
    sources: tuple[IndexedDataset, ...]
    validation_sources: Mapping[str, tuple[IndexedDataset, ...]]
    """Of the validation sets that have sources of their own."""

    def dataset(self, split: Split, num_samples: int | None = None) -> Dataset:
        """As `Splits.dataset`; the sources are blended by their weights. One whose part is empty is left out,
        with a warning.

        Raises:
            InputError: the split is empty, or a token id is not in the vocabulary.
        """
        if num_samples is not None and num_samples < 1:
            raise InputError(f"num_samples = {num_samples} must be positive.")
        weights = [source.weight for source in self.config.sources] or [1.0]

        def documents(source: IndexedDataset) -> range:
            return split_range(self.config.split, split, self.config.documents_in(source))

        try:
            return self._blend(self.sources, weights, documents, num_samples, split)
        except EmptyPartError as error:
            raise EmptyPartError(f"{error} {self._advice(split)}") from error

    def validation(self) -> dict[str, Dataset]:
        """As `Splits.validation`."""
        if not self.validation_sources:
            return {"": self.dataset("valid")}

        def whole(source: IndexedDataset) -> range:
            return range(self.config.documents_in(source))

        sets = {}
        for name, sources in self.validation_sources.items():
            weights, label = [1.0] * len(sources), f"data.validation.{name}"
            try:
                sets[name] = self._blend(sources, weights, whole, None, label)
            except EmptyPartError as error:
                raise EmptyPartError(f"{error} Leave the set out; {WITHOUT_VALIDATION}.") from error
        return sets

    def remarks(self) -> tuple[str, ...]:
        """As `Splits.remarks`: everything is read."""
        return ()

    def _blend(
        self,
        sources: Sequence[IndexedDataset],
        weights: Sequence[float],
        documents: Callable[[IndexedDataset], range],
        num_samples: int | None,
        label: str,
    ) -> Dataset:
        """Some documents of every source; `label` says in errors of what."""

        def samples_of(source: IndexedDataset) -> Callable[[int | None], Dataset]:
            return lambda size: self._of_source(source, documents, size, label)

        return blended(list(map(samples_of, sources)), weights, num_samples, self.config.cache_dir)

    def _of_source(
        self,
        source: IndexedDataset,
        documents: Callable[[IndexedDataset], range],
        num_samples: int | None,
        label: str,
    ) -> Dataset:
        try:
            return self.config.samples(
                source,
                documents(source),
                num_samples,
                tokenizer=self.tokenizer,
                vocab_size=self.vocab_size,
            )
        except InputError as error:
            raise type(error)(f"{source.prefix}, {label}: {error}") from error

    def _advice(self, split: Split) -> str:
        """What to do about a split that has nothing of any source."""
        source = self.sources[0]
        documents = self.config.documents_in(source)
        if split == "valid":
            others = "data.validation takes it from files of its own"
            if documents > 1:
                others = f'data.split="{documents - 1},1,0" gives it one document, and {others}'
            return f"{WITHOUT_VALIDATION}; {others}."
        if not source.sequence_lengths.any():
            return "There is no token in the source."
        if split == "train":
            return 'data.split="1,0,0" with training.evaluation_rows=0 gives it all.'
        return "Give it a larger share of data.split."


def open_text(config: TextConfig, vocabulary: int | None = None) -> TextSplits:
    """Opens the sources, or prepares the corpus first; safe when many processes do it together.

    Raises:
        InputError: a file is missing or damaged.
    """
    tokenizer = None if config.tokenizer is None else load_tokenizer(config.tokenizer)
    if config.corpus is not None:
        corpus = prepare_corpus(
            config.corpus,
            config.cache_dir,
            vocab_size=config.vocab_size,
            tokenizer=tokenizer,
            sentences=config.of_sentences,
        )
        tokenizer = corpus.tokenizer
        sources = (corpus.tokens,)
    else:
        sources = tuple(config.open_source(source, tokenizer) for source in config.sources)
    validation = {
        name: tuple(config.open_source(source, tokenizer) for source in chosen.sources)
        for name, chosen in config.validation.items()
    }
    if validation and parse_split(config.split)[1] > 0:
        logging.getLogger("mjx").warning(
            'data.split = "%s" keeps documents for validation, which data.validation takes from files of its '
            'own: they are not read at all (data.split="1,0,0" trains on them)',
            config.split,
        )
    own = tokenizer.vocab_size if config.vocab_size is None and tokenizer is not None else config.vocab_size
    vocab_size = min(size for size in (own, vocabulary) if size is not None)
    return TextSplits(config, tokenizer, vocab_size, sources, validation)
