"""Finds out of which kind a tokenizer is, by its files."""

import hashlib
import os
import tempfile
from pathlib import Path

from mjx.data.tokenizers.byte import BYTE_FILE, ByteTokenizer
from mjx.data.tokenizers.huggingface import TOKENIZER_FILE, VOCABULARY_FILE, HuggingFaceTokenizer
from mjx.data.tokenizers.protocol import Tokenizer
from mjx.data.tokenizers.sentencepiece import MODEL_FILE, SentencePieceTokenizer
from mjx.data.tokenizers.tiktoken import TiktokenTokenizer, is_tiktoken
from mjx.errors import InputError


def load_tokenizer(path_or_kind: str | os.PathLike[str]) -> Tokenizer:
    """`"byte"`, or a file, or the folder of a model or run: tokenizer.json, tokenizer.model, *.tiktoken,
    or vocab.json with merges.txt.

    Raises:
        InputError: there is no tokenizer, or it cannot be read.
    """
    if path_or_kind == "byte":
        return ByteTokenizer()
    path = Path(path_or_kind)
    if path.is_dir():
        names = [
            BYTE_FILE,
            TOKENIZER_FILE,
            MODEL_FILE,
            *sorted(file.name for file in path.glob("*.tiktoken")),
            VOCABULARY_FILE,
        ]
        found = next((path / name for name in names if (path / name).is_file()), None)
        if found is None:
            raise InputError(
                f"tokenizer = {path} holds no tokenizer: a folder must have tokenizer.json, tokenizer.model, "
                "a *.tiktoken file, or vocab.json and merges.txt."
            )
        path = found
    if not path.is_file():
        raise InputError(
            f'tokenizer = {path} does not exist; give "byte", a tokenizer file or a folder with one.'
        )
    if path.name == BYTE_FILE:
        return ByteTokenizer()
    suffix = path.suffix.lower()
    if suffix == ".json":
        return HuggingFaceTokenizer.load(path)
    with path.open("rb") as file:
        start = file.read(256)
    if suffix == ".tiktoken" or is_tiktoken(start):
        return TiktokenTokenizer(path)
    if suffix == ".model":
        return SentencePieceTokenizer(path)
    raise InputError(
        f"tokenizer = {path} is of no known kind; known are tokenizer.json, *.model and *.tiktoken."
    )


def fingerprint(tokenizer: Tokenizer) -> str:
    """A digest of the files that the tokenizer saves: its content, not its path."""
    digest = hashlib.blake2b(digest_size=16)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
