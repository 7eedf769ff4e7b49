"""From a recipe's `data:` to datasets: the front door of mjx.data."""

import dataclasses

from mjx.data.config import DataConfig
from mjx.data.dataset import BlendedDataset, Dataset, InterleavedDataset, source_sizes
from mjx.data.gpt.dataset import GPTDataset
from mjx.data.gpt.index import load_gpt_index
from mjx.data.gpt.packing import PackedDataset, load_packed_index
from mjx.data.indexed import IndexedDataset
from mjx.data.named_corpus import prepare_corpus
from mjx.data.splits import Split, split_range
from mjx.data.tokenizers import Tokenizer, load_tokenizer
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The opened files of a `DataConfig`, from which the datasets of the splits are made."""

    config: DataConfig
    tokenizer: Tokenizer | None
    vocab_size: int
    """All token ids are below it; what a model's vocabulary must at least be."""
    sources: tuple[IndexedDataset, ...]

    def dataset(self, split: Split, num_samples: int | None = None) -> Dataset:
        """The samples of one split.

        Args:
            split: Which part.
            num_samples: So many or a few more, over as many epochs as it takes, blended by the weights of the
                sources. None: every sample once.

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
        config = self.config
        try:
            documents = split_range(config.split, split, len(source))
            if config.packing:
                packed = load_packed_index(
                    source,
                    documents,
                    config.cache_dir,
                    sequence_length=config.sequence_length,
                    num_samples=num_samples,
                    seed=config.seed,
                )
                return PackedDataset(
                    source, packed, sequence_length=config.sequence_length, vocab_size=self.vocab_size
                )
            index = load_gpt_index(
                source,
                documents,
                config.cache_dir,
                sequence_length=config.sequence_length,
                num_samples=num_samples,
                seed=config.seed,
            )
        except InputError as error:
            raise InputError(f"{source.prefix}, {split}: {error}") from error
        return GPTDataset(
            source,
            index,
            sequence_length=config.sequence_length,
            vocab_size=self.vocab_size,
            eod_id=None if self.tokenizer is None else self.tokenizer.eod_id,
            document_mask=config.document_mask,
            reset_positions=config.reset_positions,
            mask_eod_loss=config.mask_eod_loss,
        )


def open_data(config: DataConfig) -> TrainingData:
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
    return TrainingData(config, tokenizer, vocab_size, sources)
