"""Texts → embeddings: tokens with the special ones around them, cut where a text is too long."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from mjx.data.config import DatasetConfig
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError
from mjx.inference.embedding.embedder import Embedder

BLOCK_TEXTS, BLOCK_CHARACTERS = 16384, 1 << 24
"""Of a block, within which rows are sorted by length: what a large input holds in memory at once."""


class TextEmbedder:
    """Embeds texts, and counts those that it cuts."""

    def __init__(
        self,
        embedder: Embedder,
        tokenizer: Tokenizer,
        *,
        max_length: int | None = None,
        prompt: str = "",
        lower_case: bool = False,
        data: DatasetConfig | None = None,
    ):
        """Args:
            embedder: Of rows of tokens.
            tokenizer: Of the model.
            max_length: Tokens that are left of a longer text, special ones included; the model's positions
                bound it too.
            prompt: What stands in front of every text.
            lower_case: Read capitals as small letters, whatever the tokenizer does with them.
            data: What the model has learnt from, which says what stands around a text; None: the tokenizer.

        Raises:
            InputError: `max_length` leaves no room beside special tokens.
        """
        self._embedder, self._tokenizer, self._data = embedder, tokenizer, data
        self._prompt, self._lower_case = prompt, lower_case
        limits = [limit for limit in (max_length, embedder.max_positions) if limit is not None]
        self.max_length = min(limits, default=None)
        """Tokens of the longest row; None: there is no limit."""
        self.cut = 0
        """Texts until now that were longer."""
        self._before, self._behind = self._surroundings()
        least = len(self._before) + len(self._behind) + 1
        if self.max_length is not None and self.max_length < least:
            raise InputError(
                f"max_length = {self.max_length} leaves no room for a text beside {least - 1} special "
                f"tokens; it must be at least {least}"
            )

    @property
    def features(self) -> int:
        """Of an embedding."""
        return self._embedder.features

    def __call__(
        self, texts: Sequence[str], on_rows: Callable[[int], None] | None = None
    ) -> Float[np.ndarray, "texts features"]:
        """Their embeddings, in their order. An empty text is one of special tokens alone.

        Raises:
            InputError: a text is none (half of a surrogate pair), or is empty and has no special tokens.
        """
        return self._embedder(self.tokens(texts), on_rows)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """What the encoder reads of each text."""
        if self._lower_case:
            from tokenizers.normalizers import Lowercase

            texts = [Lowercase().normalize_str(text) for text in texts]
        rows = self._encoded([self._prompt + text for text in texts] if self._prompt else texts)
        for number, row in enumerate(rows):
            if not row:
                raise InputError(
                    f"text {number + 1}, {texts[number]!r}, has no tokens, and the tokenizer puts no special "
                    "ones around it: leave it out"
                )
            if self.max_length is not None and len(row) > self.max_length:
                rows[number] = row[: self.max_length - len(self._behind)] + self._behind
                self.cut += 1
        return rows

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        if self._data is None:
            return self._tokenizer.encode_prompts(texts)
        return self._data.prompts(self._tokenizer, texts, self._embedder.vocab_size)

    def _surroundings(self) -> tuple[list[int], list[int]]:
        """The tokens that stand in front of every text, and behind it."""
        empty, some = self._encoded(["", "a"])

        def common(one: Sequence[int], other: Sequence[int]) -> int:
            same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
            return sum(1 for _ in same)

        before = common(empty, some)
        behind = common(empty[before:][::-1], some[before:][::-1])
        return some[:before], some[len(some) - behind :]


def blocks_of_texts(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in order, some at a time."""
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(text)
        size += len(text)
        if len(block) == BLOCK_TEXTS or size >= BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block
