"""The files of a text dataset, opened: train, validation and test samples of a corpus or of a blend."""

import dataclasses

from mjx.data.dataset import BlendedDataset, Dataset, InterleavedDataset, source_sizes
from mjx.data.indexed import IndexedDataset
from mjx.data.named_corpus import prepare_corpus
from mjx.data.splits import Split, split_range
from mjx.data.text import TextConfig
from mjx.data.tokenizers import Tokenizer, load_tokenizer
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True)
class TextSplits:
    """The opened files of a `TextConfig`, from which the datasets of the splits are made."""

    config: TextConfig
    tokenizer: Tokenizer | None
    vocab_size: int
    """All token ids are below it; what a model's vocabulary must at least be."""
    sources: tuple[IndexedDataset, ...]

    def dataset(self, split: Split, num_samples: int | None = None) -> Dataset:
        """As `Splits.dataset`; the sources are blended by their weights.

        Raises:
            InputError: the split is empty or shorter than one sample, or a token id is not in the vocabulary.
        """
        if num_samples is not None and num_samples < 1:
            raise InputError(f"num_samples = {num_samples} must be positive.")
        if len(self.sources) == 1:
            return self._of_source(self.sources[0], split, num_samples)
        if num_samples is None:
            return InterleavedDataset([self._of_source(source, split, None) for source in self.sources])
        weights = [source.weight for source in self.config.sources]
        parts = [
            self._of_source(source, split, size)
            for source, size in zip(self.sources, source_sizes(weights, num_samples), strict=True)
        ]
        return BlendedDataset(parts, weights, num_samples, self.config.cache_dir)

    def _of_source(self, source: IndexedDataset, split: Split, num_samples: int | None) -> Dataset:
        try:
            documents = split_range(self.config.split, split, len(source))
            return self.config.samples(
                source, documents, num_samples, tokenizer=self.tokenizer, vocab_size=self.vocab_size
            )
        except InputError as error:
            raise InputError(f"{source.prefix}, {split}: {error}") from error


def open_text(config: TextConfig) -> TextSplits:
    """Opens the sources, or prepares the corpus first; safe when many processes do it together.

    Raises:
        InputError: a file is missing or damaged, or the tokenizer does not fit vocab_size.
    """
    tokenizer = None if config.tokenizer is None else load_tokenizer(config.tokenizer)
    if config.corpus is not None:
        corpus = prepare_corpus(
            config.corpus, config.cache_dir, vocab_size=config.vocab_size, tokenizer=tokenizer
        )
        tokenizer = corpus.tokenizer
        sources = (IndexedDataset(corpus.prefix),)
    else:
        sources = tuple(IndexedDataset(source.path) for source in config.sources)
    known = None if tokenizer is None else tokenizer.vocab_size
    vocab_size = max(known or 0, config.vocab_size or 0)
    if known is not None and config.vocab_size is not None and known > config.vocab_size:
        raise InputError(
            f"data.vocab_size = {config.vocab_size} is smaller than the tokenizer's {known}; leave it "
            f"out, or give at least {known}."
        )
    return TextSplits(config, tokenizer, vocab_size, sources)
