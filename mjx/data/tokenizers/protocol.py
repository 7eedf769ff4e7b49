"""What mjx asks of a tokenizer."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

from mjx.errors import InputError


class Tokenizer(Protocol):
    """Text ↔ token ids. `encode` adds no special token: what is asked for is what comes out."""

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

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each, on all cores where the library can."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """What generation starts from: with the special tokens that the model's prompts begin (or end) with,
        and special tokens that are written in the text recognised. Of a Hugging Face folder the ids of
        transformers' `tokenizer(text)["input_ids"]`."""
        ...

    def encode_chat(self, text: str) -> list[int]:
        """Of a chat that a template has written out: its special tokens are recognised, none is added."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def save(self, folder: str | Path) -> None:
        """Writes the files from which `load_tokenizer(folder)` makes this tokenizer again."""
        ...


def optional_package(name: str, wanted_by: str | Path) -> ModuleType:
    """Imports a package that only some inputs need; InputError says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{wanted_by} needs the package {name}: pip install 'mjx[data]'.") from error
