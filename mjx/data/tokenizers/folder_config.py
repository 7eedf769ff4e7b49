"""What a Hugging Face folder says beside a tokenizer's vocabulary: settings, special and added tokens."""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mjx.errors import InputError

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
SPECIAL_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""The special tokens that have a name in every folder, and in chat templates."""


@dataclasses.dataclass(frozen=True)
class AddedToken:
    """A token beside the vocabulary's own, matched in the text before anything else is."""

    content: str
    special: bool
    """Left out of decoded text."""

    normalized: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


@dataclasses.dataclass(frozen=True)
class FolderConfig:
    """tokenizer_config.json, and the two files that older folders have besides it."""

    settings: dict[str, Any]
    """tokenizer_config.json as it stands."""

    names: dict[str, str]
    """bos_token, eos_token, ... → the token."""

    more_special: tuple[str, ...]
    """Special tokens without one of the names."""

    added: dict[int, AddedToken]

    exists: bool
    """Whether the folder says anything of this."""

    @classmethod
    def read(cls, folder: Path) -> "FolderConfig":
        """Raises:
        InputError: a file is not JSON, or its JSON is of another shape.
        """
        settings, named = read_json(folder / CONFIG_FILE), read_json(folder / SPECIAL_FILE)
        given = dict(settings)
        # Newer folders state all in tokenizer_config.json; an added_tokens_decoder marks them.
        if "added_tokens_decoder" not in settings:
            given.update(named)
        names = {name: token for name in SPECIAL_NAMES if (token := _content(given.get(name))) is not None}
        extra = given.get("extra_special_tokens") or given.get("additional_special_tokens") or ()
        listed = extra.values() if isinstance(extra, dict) else extra if isinstance(extra, list) else ()
        more = [_content(token) for token in listed]
        more += [
            _content(token)
            for name, token in given.items()
            if name.endswith("_token") and name not in SPECIAL_NAMES and isinstance(token, str | dict)
        ]
        special = {*names.values(), *more}
        return cls(
            settings=settings,
            names=names,
            more_special=tuple(token for token in more if token is not None),
            added=_added_tokens(folder, settings, {token for token in special if token is not None}),
            exists=bool(settings or named),
        )

    def flag(self, name: str) -> bool | None:
        """A setting that is true or false; None where the folder does not say."""
        value = self.settings.get(name)
        return value if isinstance(value, bool) else None


def read_json(file: Path) -> dict[str, Any]:
    """The object of a JSON file, empty where there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold a JSON object, not {type(content).__name__}.")
    return content


def names_with_a_token(
    names: Mapping[str, str], token_id: Callable[[str], int | None], file: Path
) -> dict[str, str]:
    """The special tokens that the vocabulary of `file` has. Files name others as well, which nothing need ask
    for: those that mjx could use are warned of, and are as good as unnamed."""
    for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
        if name in names and token_id(names[name]) is None:
            logging.getLogger("mjx").warning(
                '%s = "%s" is not in the vocabulary of %s: it is left out.', name, names[name], file
            )
    return {name: token for name, token in names.items() if token_id(token) is not None}


def _added_tokens(folder: Path, settings: dict[str, Any], special: set[str]) -> dict[int, AddedToken]:
    try:
        if "added_tokens_decoder" in settings:
            fields = {field.name for field in dataclasses.fields(AddedToken)}
            defaults = {"special": False, "normalized": True}
            found = {
                int(token_id): AddedToken(
                    **{**defaults, **{key: token[key] for key in fields & token.keys()}}
                )
                for token_id, token in settings["added_tokens_decoder"].items()
            }
        else:
            found = {
                int(token_id): AddedToken(
                    content, special=content in special, normalized=content not in special
                )
                for content, token_id in read_json(folder / ADDED_FILE).items()
            }
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"The added tokens of {folder} cannot be read: {error}.") from error
    return dict(sorted(found.items()))


def _content(token: str | dict[str, Any] | None) -> str | None:
    """Special tokens are written as a string, or as an added token with its content."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
