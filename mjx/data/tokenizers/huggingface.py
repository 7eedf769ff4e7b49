"""Hugging Face's tokenizer.json, with the special tokens that the files beside it name."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mjx.data.tokenizers.byte_level import read_byte_level_bpe, surround
from mjx.data.tokenizers.chat_template import PROCESSOR_FILE, TEMPLATE_FILE
from mjx.data.tokenizers.folder_config import (
    ADDED_FILE,
    CONFIG_FILE,
    SPECIAL_FILE,
    FolderConfig,
    names_with_a_token,
)
from mjx.data.tokenizers.protocol import checked, known_ids
from mjx.errors import InputError

TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"
_CARRIED = (
    CONFIG_FILE,
    SPECIAL_FILE,
    ADDED_FILE,
    VOCABULARY_FILE,
    MERGES_FILE,
    "tokenizer.model",
    TEMPLATE_FILE,
    PROCESSOR_FILE,
    "additional_chat_templates/*.jinja",
)
"""What belongs to a tokenizer besides tokenizer.json; saved as it was found."""

_KNOWN_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|end▁of▁sentence|>", "[SEP]")
"""What ends a document, by the first that the vocabulary has, where no file says it."""


class HuggingFaceTokenizer:
    """A `tokenizers.Tokenizer` and its special tokens by name."""

    def __init__(
        self,
        tokenizer: Any,
        eos_token: str | None,
        bos_token: str | None,
        pad_token: str | None,
        *,
        cls_token: str | None = None,
        sep_token: str | None = None,
        mask_token: str | None = None,
        clean_up_spaces: bool = False,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Args:
        tokenizer: A `tokenizers.Tokenizer`.
        eos_token: The token that ends a document.
        bos_token: The token that begins one.
        pad_token: The token that fills.
        cls_token: The token before a text that an encoder reads.
        sep_token: The token between two texts and behind them.
        mask_token: The token in the place of a hidden one.
        clean_up_spaces: Remove spaces before punctuation from decoded text.
        files: Path inside a folder → content, of the files it was read from; without, `save` writes new ones.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer
        self.names = {
            "eos_token": eos_token,
            "bos_token": bos_token,
            "pad_token": pad_token,
            "cls_token": cls_token,
            "sep_token": sep_token,
            "mask_token": mask_token,
        }
        ids = {
            name: None if token is None else tokenizer.token_to_id(token)
            for name, token in self.names.items()
        }
        for name, token in self.names.items():
            if token is not None and ids[name] is None:
                raise InputError(f'{name} = "{token}" is not in the vocabulary of the tokenizer.')
        self.eod_id, self.bos_id, self.pad_id = ids["eos_token"], ids["bos_token"], ids["pad_token"]
        self.cls_id, self.sep_id, self.mask_id = ids["cls_token"], ids["sep_token"], ids["mask_token"]
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self._clean_up_spaces = clean_up_spaces
        self._files = files

    @classmethod
    def load(cls, file: Path) -> "HuggingFaceTokenizer":
        """Reads a tokenizer.json, or a vocab.json with the merges.txt beside it."""
        import tokenizers

        config = FolderConfig.read(file.parent)
        if file.name == VOCABULARY_FILE:
            tokenizer, names = read_byte_level_bpe(file, config)
            add_tokens(tokenizer, config, names, refuse_other_ids=True)
            names = names_with_a_token(names, tokenizer.token_to_id, file)
            surround(tokenizer, config, names)
        else:
            try:
                tokenizer = tokenizers.Tokenizer.from_file(str(file))
            except Exception as error:  # the library raises nothing narrower
                raise InputError(
                    f"{file} is not a tokenizer.json that the tokenizers library reads: {error}."
                ) from error
            add_tokens(tokenizer, config, config.names)
            names = names_with_a_token(config.names, tokenizer.token_to_id, file)
        if not config.exists and "eos_token" not in names:
            eos = next((token for token in _KNOWN_ENDS if tokenizer.token_to_id(token) is not None), None)
        else:
            eos = names.get("eos_token")
        # The clean-up was made for word pieces; of byte pairs it would eat spaces of the text.
        clean_up = bool(config.flag("clean_up_tokenization_spaces")) and (
            not isinstance(tokenizer.model, tokenizers.models.BPE)
        )
        return cls(
            tokenizer,
            eos,
            names.get("bos_token"),
            names.get("pad_token"),
            cls_token=names.get("cls_token"),
            sep_token=names.get("sep_token"),
            mask_token=names.get("mask_token"),
            clean_up_spaces=clean_up,
            files=_read_files(file),
        )

    @property
    def separators(self) -> int:
        more = self.tokenizer.num_special_tokens_to_add
        return max(1, more(True) - more(False))

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(checked(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encode_all(texts, specials=False)

    def encode_prompt(self, text: str) -> list[int]:
        return self.tokenizer.encode(checked(text)).ids

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encode_all(texts, specials=True)

    def _encode_all(self, texts: Sequence[str], *, specials: bool) -> list[list[int]]:
        whole = [checked(text) for text in texts]
        encodings = self.tokenizer.encode_batch_fast(whole, add_special_tokens=specials)
        return [encoding.ids for encoding in encodings]

    def encode_chat(self, text: str) -> list[int]:
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        text = self.tokenizer.decode(known_ids(ids, self.vocab_size), skip_special_tokens=True)
        return _without_spaces_before_punctuation(text) if self._clean_up_spaces else text

    def token(self, token_id: int) -> str | None:
        return self.tokenizer.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None

    def token_id(self, token: str) -> int | None:
        return self.tokenizer.token_to_id(token)

    def save(self, folder: str | Path) -> None:
        """A tokenizer that was read is written as it was found, chat template and all."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        if self._files is not None:
            for name, content in self._files.items():
                file = Path(folder, name)
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(content)
            return
        self.tokenizer.save(str(Path(folder, TOKENIZER_FILE)))
        names = {name: token for name, token in self.names.items() if token is not None}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **names,
        }
        Path(folder, CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def add_tokens(
    tokenizer: Any, config: FolderConfig, names: Mapping[str, str], *, refuse_other_ids: bool = False
) -> None:
    """Makes the tokens special that the folder calls so, and adds those that it has beside the vocabulary.

    A tokenizer.json says itself which id a token has; what other files say of it is warned of where it
    differs. `refuse_other_ids`: of a vocabulary that lacks its added tokens, only those files know.
    """
    import tokenizers

    known = tokenizer.get_added_tokens_decoder()
    for token_id, token in config.added.items():
        if token_id in known and known[token_id].content == token.content:
            continue
        added = tokenizers.AddedToken(
            token.content,
            single_word=token.single_word,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=token.normalized,
            special=token.special,
        )
        tokenizer.add_tokens([added])
        if (given := tokenizer.token_to_id(token.content)) != token_id:
            said = (
                f'The added token "{token.content}" should have id {token_id}, but the vocabulary gives '
                f"it {given}"
            )
            if refuse_other_ids:
                raise InputError(f"{said}: the tokenizer's files do not belong together.")
            logging.getLogger("mjx").warning("%s, as the rest of tokenizer.json has it.", said)
    for token in (*names.values(), *config.more_special):
        if tokenizer.token_to_id(token) is not None:  # a name without a token must not enlarge the vocabulary
            tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False)])


def _read_files(file: Path) -> dict[str, bytes]:
    files = {} if file.name == VOCABULARY_FILE else {TOKENIZER_FILE: file.read_bytes()}
    for pattern in _CARRIED:
        for found in sorted(file.parent.glob(pattern)):
            files[found.relative_to(file.parent).as_posix()] = found.read_bytes()
    return files


def _without_spaces_before_punctuation(text: str) -> str:
    for spaced in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(spaced, spaced.strip())
    return text
