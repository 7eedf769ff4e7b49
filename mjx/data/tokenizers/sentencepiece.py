"""SentencePiece models (Llama 1 and 2, Mistral, T5, Gemma)."""

import re
from collections.abc import Sequence
from pathlib import Path

from mjx.data.tokenizers.chat_template import PROCESSOR_FILE, TEMPLATE_FILE
from mjx.data.tokenizers.folder_config import (
    ADDED_FILE,
    CONFIG_FILE,
    SPECIAL_FILE,
    FolderConfig,
    names_with_a_token,
)
from mjx.data.tokenizers.protocol import checked, known_ids, optional_package
from mjx.errors import InputError

MODEL_FILE = "tokenizer.model"
_CARRIED = (CONFIG_FILE, SPECIAL_FILE, ADDED_FILE, TEMPLATE_FILE, PROCESSOR_FILE)
"""What belongs to a tokenizer besides its model; saved as it was found."""

_NO_DUMMY_PREFIX = bytes([3 << 3 | 2, 2, 3 << 3, 0])
"""ModelProto.normalizer_spec.add_dummy_prefix = false; in protobuf's encoding what follows overrides.

After a special token a text goes on, so that no space is put before its first word; folders that say `legacy`
were made when it was.
"""


class SentencePieceTokenizer:
    """A SentencePiece model; its end of sentence ends a document.

    Special tokens are those that the model calls control symbols, and those of a Hugging Face folder's
    tokenizer_config.json.
    """

    def __init__(self, file: Path) -> None:
        package = optional_package("sentencepiece", file)
        model, config = file.read_bytes(), FolderConfig.read(file.parent)
        try:
            self._processor = package.SentencePieceProcessor(model_proto=model)
            after_special = model if config.flag("legacy") else model + _NO_DUMMY_PREFIX
            self._inner = package.SentencePieceProcessor(model_proto=after_special)
        except RuntimeError as error:
            raise InputError(f"{file} is not a SentencePiece model: {error}.") from error
        self._files = {MODEL_FILE: model} | {
            name: file.with_name(name).read_bytes() for name in _CARRIED if file.with_name(name).is_file()
        }
        size = self._size = int(self._processor.vocab_size())
        added = {token_id: token for token_id, token in config.added.items() if token_id >= size}
        self.vocab_size: int = max([size, *(token_id + 1 for token_id in added)])
        ids = {self._processor.id_to_piece(token_id): token_id for token_id in range(size)}
        ids |= {token.content: token_id for token_id, token in added.items()}
        found = names_with_a_token(config.names, ids.get, file)
        names = {name: ids[token] for name, token in found.items()}

        def known(token: int) -> int | None:
            return token if token >= 0 else None

        self.eod_id = names.get("eos_token", known(self._processor.eos_id()))
        self.bos_id = names.get("bos_token", known(self._processor.bos_id()))
        self.pad_id = names.get("pad_token", known(self._processor.pad_id()))
        self.cls_id, self.sep_id = names.get("cls_token"), names.get("sep_token")
        self.mask_id = names.get("mask_token")
        self.separators = 1
        self._ids = ids
        self._begin = [self.bos_id] if config.flag("add_bos_token") and self.bos_id is not None else []
        self._end = [self.eod_id] if config.flag("add_eos_token") and self.eod_id is not None else []
        control = {token_id for token_id in range(size) if self._processor.is_control(token_id)}
        special = {token_id for token_id, token in config.added.items() if token.special}
        self._hidden = control | special | set(names.values())
        self._added = {token_id: token.content for token_id, token in added.items()}
        self._written = {
            **{
                self._processor.id_to_piece(token_id): token_id
                for token_id in self._hidden
                if token_id < size
            },
            **{content: token_id for token_id, content in self._added.items()},
        }
        longest_first = sorted(self._written, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(checked(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._processor.encode([checked(text) for text in texts])

    def encode_prompt(self, text: str) -> list[int]:
        return self._begin + self.encode_chat(text) + self._end

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode_prompt(text) for text in texts]

    def encode_chat(self, text: str) -> list[int]:
        if self._special is None:
            return self.encode(text)
        ids, place = [], 0
        for found in self._special.finditer(checked(text)):
            ids += self._encode_part(text[place : found.start()], place)
            ids.append(self._written[found[0]])
            place = found.end()
        return ids + self._encode_part(text[place:], place)

    def _encode_part(self, text: str, place: int) -> list[int]:
        return (self._inner if place else self._processor).encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        shown = [
            token
            for token in known_ids(ids, self.vocab_size)
            if token not in self._hidden and (token < self._size or token in self._added)
        ]
        if not any(token in self._added for token in shown):
            return self._processor.decode(shown)
        text, part = "", []
        for token in [*shown, None]:
            if token is not None and token not in self._added:
                part.append(token)
                continue
            text += self._processor.decode(part)
            part = []
            text += "" if token is None else self._added[token]
        return text

    def token(self, token_id: int) -> str | None:
        if token_id in self._added:
            return self._added[token_id]
        return self._processor.id_to_piece(token_id) if 0 <= token_id < self._size else None

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def save(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            Path(folder, name).write_bytes(content)
