"""What mjx asks of a tokenizer."""

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

from mjx.errors import InputError


class Tokenizer(Protocol):
    """Text ↔ token ids. `encode` adds no special token: what is asked for is what comes out.

    Every `encode…` refuses what is no text: half of a surrogate pair, as a file or a command line that is
    not UTF-8 leaves it.
    """

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        ...

    @property
    def eod_id(self) -> int | None:
        """The token that ends a document."""
        ...

    @property
    def bos_id(self) -> int | None: ...

    @property
    def pad_id(self) -> int | None: ...

    @property
    def cls_id(self) -> int | None:
        """The token before a text that an encoder reads."""
        ...

    @property
    def sep_id(self) -> int | None:
        """The token between two texts and behind them."""
        ...

    @property
    def separators(self) -> int:
        """How many `sep_id` stand between two texts of a row."""
        ...

    @property
    def mask_id(self) -> int | None:
        """The token in the place of a hidden one."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each, on all cores where the library can."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """What generation starts from: with the special tokens that the model's prompts begin (or end) with,
        and special tokens that are written in the text recognised. Of a Hugging Face folder the ids of
        transformers' `tokenizer(text)["input_ids"]`."""
        ...

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_prompt` of each, on all cores where the library can."""
        ...

    def encode_chat(self, text: str) -> list[int]:
        """Of a chat that a template has written out: its special tokens are recognised, none is added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens are left out, and so are ids that no token has: the rows that pad a model's
        vocabulary may be drawn like any other."""
        ...

    def token(self, token_id: int) -> str | None:
        """How the vocabulary calls an id; None where it has no such token."""
        ...

    def token_id(self, token: str) -> int | None:
        """The id of what `token` calls so; None where the vocabulary has no such token."""
        ...

    def save(self, folder: str | Path) -> None:
        """Writes the files from which `load_tokenizer(folder)` makes this tokenizer again."""
        ...


def checked(text: str) -> str:
    """The text, if it is one: the libraries disagree about halves of surrogate pairs.

    Raises:
        InputError: it has one.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text has half of a surrogate pair at character {error.start + 1}, which is no text: was it "
            "read as UTF-8?"
        ) from error
    return text


def known_ids(ids: Iterable[int], size: int) -> list[int]:
    """Those that a vocabulary of so many tokens has, as plain numbers: libraries refuse others, of a NumPy
    array too."""
    return [int(token) for token in ids if 0 <= token < size]


def optional_package(name: str, wanted_by: str | Path, extra: str = "data") -> ModuleType:
    """Imports a package that only some inputs need; InputError says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{wanted_by} needs the package {name}: pip install 'mjx[{extra}]'.") from error
