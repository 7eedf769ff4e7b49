"""What is told of pictures as tokens, made once and kept in the cache."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64

from mjx.data.cache import cached_arrays
from mjx.data.image_text.told import MARK, ToldPictures
from mjx.data.tokenizers import Tokenizer, fingerprint
from mjx.errors import InputError

_FORMAT = 1
"""Part of the cache key: raised when what is cached changes its meaning."""
MARK_ID = -1
"""Stands for a picture among the tokens."""
_AT_ONCE = 4096

Piece = tuple[str, bool]
"""A part of a text, and whether it is learned."""


@dataclasses.dataclass(frozen=True)
class TextTokens:
    """Texts of samples, of which one may have several to choose from."""

    tokens: Int32[np.ndarray, "tokens"]
    """Of all texts, one after another; `MARK_ID` for a picture."""
    learned: Bool[np.ndarray, "tokens"]
    """Which are to be told."""
    starts: Int64[np.ndarray, "texts+1"]
    """The first token of each text, then how many there are."""
    texts: Int64[np.ndarray, "samples+1"]
    """The first text of each sample, then how many there are."""

    def text(self, number: int) -> tuple[Int32[np.ndarray, "tokens"], Bool[np.ndarray, "tokens"]]:
        """The tokens of a text, and which are learned."""
        some = slice(int(self.starts[number]), int(self.starts[number + 1]))
        return self.tokens[some], self.learned[some]

    def check(self, vocab_size: int, path: str, image_token: int | None = None) -> None:
        """Raise `InputError` if a token is beyond the vocabulary, or one in whose place features would
        stand."""
        most = int(self.tokens.max(initial=0))
        if most >= vocab_size:
            raise InputError(f"{path}: token id {most} is not below the vocabulary's {vocab_size}.")
        if image_token is not None and (found := np.flatnonzero(self.tokens == image_token)).size:
            text = int(np.searchsorted(self.starts, found[0], "right"))
            sample = int(np.searchsorted(self.texts, text - 1, "right"))
            raise InputError(
                f"{path}: the text of sample {sample} has the token {image_token} (model.image_token), in "
                f"whose places pictures stand; write {MARK} for one, or choose a token that texts have not."
            )


def tokenized(
    source: ToldPictures,
    pieces: Callable[[int], Sequence[Sequence[Piece]]],
    tokenizer: Tokenizer,
    cache_dir: str,
    key: Sequence[object],
    end: int | None = None,
) -> TextTokens:
    """The tokens of a source's texts; the same from the cache when nothing has changed.

    Args:
        source: What is told.
        pieces: The texts of a sample, each in parts. A mark in one stands for a picture.
        tokenizer: Makes the tokens. In conversations, special tokens that a template has written are
            recognised.
        cache_dir: Where they are kept.
        key: What else they depend on.
        end: Stands behind every caption, and is learned; None: nothing does.
    """
    told = json.dumps([source.told, source.first.tolist()])
    digest = hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    names = [field.name for field in dataclasses.fields(TextTokens)]

    def build() -> dict[str, np.ndarray]:
        tokens, learned, starts, texts = [], [], [0], [0]
        length = 0
        for told, of_sample in zip(source.told, _encoded(source, pieces, tokenizer), strict=True):
            for ids, flags in of_sample:
                if end is not None and isinstance(told[0], str):
                    ids, flags = [*ids, end], [*flags, True]
                tokens.append(np.array(ids, np.int32))
                learned.append(np.array(flags, bool))
                length += len(ids)
                starts.append(length)
            texts.append(len(starts) - 1)
        return {
            "tokens": np.concatenate(tokens),
            "learned": np.concatenate(learned),
            "starts": np.array(starts, np.int64),
            "texts": np.array(texts, np.int64),
        }

    whole = {"format": _FORMAT, "told": digest, "tokenizer": fingerprint(tokenizer), "key": [*key, end]}
    return TextTokens(**cached_arrays(cache_dir, "texts", whole, names, build))


Made = tuple[list[int], list[bool]]


def _encoded(
    source: ToldPictures, pieces: Callable[[int], Sequence[Sequence[Piece]]], tokenizer: Tokenizer
) -> Iterator[list[Made]]:
    """The texts of each sample."""
    for begin in range(0, len(source), _AT_ONCE):
        some = range(begin, min(begin + _AT_ONCE, len(source)))
        cut = [
            [[(text.split(MARK), flag) for text, flag in one] for one in pieces(sample)] for sample in some
        ]
        plain = [
            part
            for sample, texts in zip(some, cut, strict=True)
            if isinstance(source.told[sample][0], str)
            for one in texts
            for split, _ in one
            for part in split
        ]
        encoded = iter(tokenizer.encode_batch(plain))
        for sample, texts in zip(some, cut, strict=True):
            chat = not isinstance(source.told[sample][0], str)
            made: list[Made] = []
            for one in texts:
                ids: list[int] = []
                flags: list[bool] = []
                for split, flag in one:
                    for number, part in enumerate(split):
                        found = tokenizer.encode_chat(part) if chat else next(encoded)
                        new = [MARK_ID] * (number > 0) + found
                        ids += new
                        flags += [flag and token != MARK_ID for token in new]
                made.append((ids, flags))
            yield made
