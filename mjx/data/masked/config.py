"""What the kinds of data that hide tokens have in common."""

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int64

from mjx.data.indexed import IndexedDataset
from mjx.data.masked.masking import Masking
from mjx.data.masked.sentence_map import load_sentence_map
from mjx.data.masked.sentences import Sentences
from mjx.data.text import TextConfig
from mjx.data.tokenizers import Tokenizer
from mjx.data.tokenizers.special import SpecialToken
from mjx.errors import InputError

_CONTINUES = "##"
"""With this the vocabularies of word pieces write what continues a word."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedConfig(TextConfig):
    """Megatron's masked datasets: samples are sentences of one document, of which some tokens are hidden.

    The sources are split into sentences (`mjx data build --split-sentences`), each a sequence of the `.idx`.
    A document of several sentences of which one has more than 512 tokens is left out.
    """

    of_sentences: ClassVar[bool] = True

    sequence_length: int = 512
    """Tokens in a row, with special tokens."""
    mask_probability: float = 0.15
    """The share of tokens that are hidden. Megatron: --mask-prob."""
    short_probability: float = 0.1
    """Of a sample of fewer tokens than fit (1 / it is rounded). Megatron: --short-seq-prob."""
    max_ngram: int = 3
    """Words that are hidden together, at most."""
    whole_words: bool = True
    """Hide all pieces of a word together: those that the vocabulary writes with ## continue one."""
    longer_ngrams: bool = False
    """Prefer many words together to few, by the same odds the other way around."""
    geometric: bool = False
    """Draw from a geometric distribution (p = 0.2) how many words are hidden together."""
    pad: SpecialToken = None
    """What fills rows: a token or its id; null: what the tokenizer calls so. It is read as token 0."""

    @property
    def masking(self) -> Masking:
        """How tokens are chosen."""
        return Masking(
            probability=self.mask_probability,
            max_ngram=self.max_ngram,
            whole_words=self.whole_words,
            longer_ngrams=self.longer_ngrams,
            geometric=self.geometric,
        )

    def documents_in(self, source: IndexedDataset) -> int:
        return source.num_documents

    def sentences(
        self,
        source: IndexedDataset,
        documents: range,
        num_samples: int | None,
        *,
        specials: int,
        least: int,
        vocab_size: int,
    ) -> Sentences:
        """The sentences of samples with so many special tokens, and so many sentences at least."""
        samples = load_sentence_map(
            source,
            documents,
            self.cache_dir,
            length=self.sequence_length - specials,
            num_samples=num_samples,
            short_probability=self.short_probability,
            least_sentences=least,
            seed=self.seed,
        )
        return Sentences(source, samples, vocab_size=vocab_size)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sequence_length < 8:
            raise InputError(f"sequence_length = {self.sequence_length} must be at least 8.")
        if not 0 < self.mask_probability < 1:
            raise InputError(f"mask_probability = {self.mask_probability} must be between 0 and 1.")
        if not (self.short_probability == 0 or 1e-6 <= self.short_probability <= 1):
            raise InputError(f"short_probability = {self.short_probability} must be 0, or from 1e-6 to 1.")
        if self.max_ngram < 1:
            raise InputError(f"max_ngram = {self.max_ngram} must be at least 1.")
        if self.geometric and self.longer_ngrams:
            raise InputError("longer_ngrams = true has no effect with geometric = true; leave one out.")


def pieces(
    tokenizer: Tokenizer | None, vocab_size: int
) -> tuple[Bool[np.ndarray, "vocabulary"], Int64[np.ndarray, "tokens"]]:
    """Which ids continue a word, and all ids that are tokens; without a tokenizer none, and all."""
    if tokenizer is None:
        return np.zeros(vocab_size, bool), np.arange(vocab_size)
    written = [tokenizer.token(token) for token in range(vocab_size)]
    continues = np.array([token is not None and token.startswith(_CONTINUES) for token in written])
    return continues, np.flatnonzero([token is not None for token in written])
