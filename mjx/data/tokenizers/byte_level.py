"""Byte-level BPE from its two files, vocab.json and merges.txt, as GPT-2 was published."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mjx.data.tokenizers.folder_config import FolderConfig, read_json
from mjx.errors import InputError

_CLASS = "GPT2Tokenizer"
_END_OF_TEXT = "<|endoftext|>"


def read_byte_level_bpe(file: Path, config: FolderConfig) -> tuple[Any, Mapping[str, str]]:
    """The `tokenizers.Tokenizer` of a vocab.json and the merges.txt beside it, and its special tokens.

    Raises:
        InputError: the files are those of another kind of BPE, whose way to cut text they do not tell.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    kind = str(config.settings.get("tokenizer_class", _CLASS)).removesuffix("Fast")
    if kind != _CLASS:
        raise InputError(
            f"{file.parent} has vocab.json and merges.txt of a {kind}, which do not tell how it cuts text: a "
            "tokenizer.json is needed."
        )
    vocabulary = read_json(file)
    missing = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - vocabulary.keys())
    if missing:
        raise InputError(f'{file} is not the vocabulary of a byte-level BPE: it has no "{missing[0]}".')
    try:
        model = models.BPE.from_file(str(file), str(file.with_name("merges.txt")))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file} and merges.txt beside it are no BPE: {error}.") from error
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.flag("add_prefix_space")))
    tokenizer.decoder = decoders.ByteLevel()
    defaults = dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END_OF_TEXT)
    names = {**(defaults if _END_OF_TEXT in vocabulary else {}), **config.names}
    return tokenizer, names


def surround(tokenizer: Any, config: FolderConfig, names: Mapping[str, str]) -> None:
    """Has prompts begin and end with the special tokens that the folder asks for, where there are any."""
    from tokenizers import processors

    begin = names.get("bos_token") if config.flag("add_bos_token") else None
    end = names.get("eos_token") if config.flag("add_eos_token") else None
    special = [(token, tokenizer.token_to_id(token)) for token in (begin, end) if token is not None]
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[token for token in (begin, "$A", end) if token is not None], special_tokens=special
        )
