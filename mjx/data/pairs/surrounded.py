"""Rows that an encoder reads: `[CLS] text [SEP]`, or of two texts `[CLS] text [SEP] other [SEP]`."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int64

from mjx.data.dataset import Batch
from mjx.data.pairs.order import fitted
from mjx.data.tokenizers import Tokenizer
from mjx.data.tokenizers.special import SpecialToken, SpecialTokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surrounding:
    """What stands around texts."""

    cls_id: int
    """Begins a row."""
    sep_id: int
    """Ends a text."""
    pad_id: int
    """Fills rows."""
    separators: int = 1
    """How many stand between two texts."""

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer | None,
        vocab_size: int,
        *,
        first: SpecialToken = None,
        sep: SpecialToken = None,
        pad: SpecialToken = None,
        separators: int | None = None,
    ) -> "Surrounding":
        """What a config says, or else the tokenizer.

        Raises:
            InputError: neither says what begins a row, or ends a text.
        """
        found = SpecialTokens(tokenizer, vocab_size)
        return cls(
            cls_id=found.find("cls", first),
            sep_id=found.find("sep", sep),
            pad_id=found.find_or_none("pad", pad) or 0,
            separators=separators or (1 if tokenizer is None else tokenizer.separators),
        )

    def alone(self, tokens: Sequence[int]) -> list[int]:
        """A row of one text."""
        return [self.cls_id, *tokens, self.sep_id]

    def special(self, texts: int) -> int:
        """Tokens of a row of so many texts that are none of theirs."""
        return 2 if texts == 1 else 2 + self.separators

    def kept(self, lengths: Int64[np.ndarray, "rows texts"], longest: int) -> Int64[np.ndarray, "rows texts"]:
        """How many tokens of each text are read, so that no row is longer than `longest`."""
        texts = lengths.shape[1]
        first, last = lengths[:, 0], lengths[:, 1] if texts == 2 else 0 * lengths[:, 0]
        return np.stack(fitted(first, last, longest - self.special(texts))[:texts], axis=1)

    def rows(
        self, tokens: Int[np.ndarray, "tokens"], kept: Int64[np.ndarray, "rows texts"], width: int
    ) -> Batch:
        """`tokens`, `segment_ids` (0 behind the row) and `token_types` (1 of the second text).

        Args:
            tokens: Of all texts, one after another, row by row.
            kept: How many each has.
            width: Of the rows.
        """
        shape, place = (len(kept), width), np.arange(width)
        out = np.full(shape, self.pad_id, np.int32)
        out[:, 0] = self.cls_id
        types, inside = np.zeros(shape, np.int32), np.zeros(shape, bool)
        end = np.ones(len(kept), np.int64)
        for text, length in enumerate(kept.T):
            begin, end = end, end + length
            part = (place >= begin[:, None]) & (place < end[:, None])
            last = text == kept.shape[1] - 1
            after = 1 if last else self.separators
            separator = (place >= end[:, None]) & (place < (end + after)[:, None])
            out[separator] = self.sep_id
            types[part | (separator if last else False)] = text
            inside |= part
            end = end + after
        out[inside] = tokens
        segment_ids = (place < end[:, None]).astype(np.int32)
        return {"tokens": out, "segment_ids": segment_ids, "token_types": types}
