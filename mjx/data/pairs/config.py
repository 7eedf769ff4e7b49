"""What the kinds of data whose rows are texts that belong together have in common."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from mjx.data.indexed import IndexedDataset
from mjx.data.pairs.prepared import Texts, prepare_rows
from mjx.data.pairs.surrounded import Surrounding
from mjx.data.text import SourceConfig, TextConfig
from mjx.data.tokenizers import Tokenizer
from mjx.data.tokenizers.special import SpecialToken
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig(TextConfig):
    """Rows of `.jsonl`, `.json`, `.tsv` or `.parquet` files (folders, patterns), which are tokenized once,
    into the cache; `split` divides them in their order."""

    sequence_length: int = 512
    """Tokens in a row, with special tokens. What is longer is cut, with a warning."""
    pad: SpecialToken = None
    """What fills rows: a token or its id; null: what the tokenizer calls so, else 0."""
    buckets: tuple[int, ...] = ()
    """Shorter lengths than sequence_length: a batch whose rows all fit is as long as the first that holds
    them. Each is a program of its own."""
    sort_rows: int = 0
    """Rows of like length next to each other, sorted among so many in the drawn order; 0: as they are drawn.
    Many batches' worth, where there are buckets."""

    def rows(self, source: SourceConfig) -> Iterator[Texts]:
        """The texts of a source, checked, with their labels."""
        raise NotImplementedError(type(self))

    def paths(self, source: SourceConfig) -> list[str]:
        """The files that a source is read from."""
        return [source.path]

    def open_source(self, source: SourceConfig, tokenizer: Tokenizer | None) -> IndexedDataset:
        if tokenizer is None:
            raise InputError("data.tokenizer = null: rows are texts, so name the tokenizer that reads them.")
        return prepare_rows(
            self.paths(source),
            lambda: self.rows(source),
            tokenizer,
            self.cache_dir,
            {"kind": self.kind, **self.makes_rows()},
        )

    def makes_rows(self) -> dict[str, Any]:
        """The settings on which texts and labels depend, beside the files."""
        raise NotImplementedError(type(self))

    def documents_in(self, source: IndexedDataset) -> int:
        return source.num_documents

    def __post_init__(self) -> None:
        if self.corpus is not None:
            raise InputError(f'corpus = "{self.corpus}" has neither pairs nor labels; name files in sources.')
        super().__post_init__()
        if self.sequence_length < 8:
            raise InputError(f"sequence_length = {self.sequence_length} must be at least 8.")
        if self.sort_rows < 0:
            raise InputError(f"sort_rows = {self.sort_rows} must be at least 0.")
        if list(self.buckets) != sorted({size for size in self.buckets if 0 < size < self.sequence_length}):
            raise InputError(
                f"buckets = {list(self.buckets)} must rise, and be below sequence_length = "
                f"{self.sequence_length}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SurroundedConfig(PairsConfig):
    """Rows that an encoder reads: texts with special tokens around them."""

    cls: SpecialToken = None
    """What begins a row: a token or its id; null: what the tokenizer calls so."""
    sep: SpecialToken = None
    """What ends a text: a token or its id; null: what the tokenizer calls so."""

    def surrounding(self, tokenizer: Tokenizer | None, vocab_size: int) -> Surrounding:
        """What stands around the texts of a row."""
        return Surrounding.of(tokenizer, vocab_size, first=self.cls, sep=self.sep, pad=self.pad)

    def prompts(self, tokenizer: Tokenizer, texts: Sequence[str], vocab_size: int) -> list[list[int]]:
        """As rows of one text."""
        around = self.surrounding(tokenizer, vocab_size)
        return [around.alone(row) for row in tokenizer.encode_batch(texts)]
