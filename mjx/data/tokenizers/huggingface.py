"""Hugging Face's tokenizer.json, with the special tokens that tokenizer_config.json names."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mjx.errors import InputError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"

_KNOWN_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|end▁of▁sentence|>", "[SEP]")
"""What ends a document, by the first that the vocabulary has, where no tokenizer_config.json says it."""


class HuggingFaceTokenizer:
    """A `tokenizers.Tokenizer` and its special tokens by name."""

    def __init__(
        self, tokenizer: Any, eos_token: str | None, bos_token: str | None, pad_token: str | None
    ) -> None:
        """Args:
        tokenizer: A `tokenizers.Tokenizer`.
        eos_token: The token that ends a document.
        bos_token: The token that begins one.
        pad_token: The token that fills.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.names = {"eos_token": eos_token, "bos_token": bos_token, "pad_token": pad_token}
        ids = {
            name: None if token is None else tokenizer.token_to_id(token)
            for name, token in self.names.items()
        }
        for name, token in self.names.items():
            if token is not None and ids[name] is None:
                raise InputError(f'{name} = "{token}" is not in the vocabulary of the tokenizer.')
        self.eod_id, self.bos_id, self.pad_id = ids["eos_token"], ids["bos_token"], ids["pad_token"]
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @classmethod
    def load(cls, file: Path) -> "HuggingFaceTokenizer":
        import tokenizers

        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise InputError(
                f"{file} is not a tokenizer.json that the tokenizers library reads: {error}."
            ) from error
        config_file = file.with_name(CONFIG_FILE)
        if not config_file.is_file():
            eos = next((token for token in _KNOWN_ENDS if tokenizer.token_to_id(token) is not None), None)
            return cls(tokenizer, eos, None, None)
        try:
            config = json.loads(config_file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{config_file} is not JSON: {error}.") from error
        return cls(
            tokenizer, *(_content(config.get(name)) for name in ("eos_token", "bos_token", "pad_token"))
        )

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [
            encoding.ids
            for encoding in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def save(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(Path(folder, TOKENIZER_FILE)))
        names = {name: token for name, token in self.names.items() if token is not None}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **names,
        }
        Path(folder, CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _content(token: str | dict[str, Any] | None) -> str | None:
    """Special tokens are written as a string, or as an AddedToken with its content."""
    return token["content"] if isinstance(token, dict) else token
