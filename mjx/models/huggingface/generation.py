"""What a Hugging Face folder says of how its model continues text."""

from typing import Any

from mjx.errors import InputError
from mjx.models.huggingface.folder import CONFIG, GENERATION_CONFIG, HuggingFaceFolder
from mjx.trees import Tree

_COUNTS = ("min_new_tokens", "min_length", "no_repeat_ngram_size")
_FORCED = {"forced_bos_token_id": "forced_bos_token", "forced_eos_token_id": "forced_eos_token"}


def sampling_of(folder: HuggingFaceFolder) -> Tree:
    """What must be in a text and must not, as fields of `SamplingConfig`: by generation_config.json, or where
    there is none by config.json, as transformers does.

    Raises:
        InputError: a value is none that mjx knows.
    """
    name = GENERATION_CONFIG if folder.generation_config else CONFIG
    said = folder.generation_config or folder.config

    def wrong(key: str, right: str) -> InputError:
        return InputError(f'{folder.path}: {name} has "{key}": {said[key]!r}, which should be {right}')

    found: dict[str, Any] = {}
    for key in _COUNTS:
        value = said.get(key) or 0
        if type(value) is not int or value < 0:
            raise wrong(key, "a number from 0 on")
        found |= {key: value} if value else {}
    for key, ours in _FORCED.items():
        value = said.get(key)
        if isinstance(value, list) and len(value) == 1:
            (value,) = value
        if value is not None and (type(value) is not int or value < 0):
            raise wrong(key, "a token id")
        found |= {} if value is None else {ours: value}
    stopping = said.get("early_stopping") or False
    if stopping not in (True, False, "never"):
        raise wrong("early_stopping", 'true, false or "never"')
    return found | ({"early_stopping": stopping} if stopping else {})


def start_token_of(folder: HuggingFaceFolder) -> int | None:
    """What the decoder of a model with an encoder begins with; None: nothing says it."""
    for said in (folder.generation_config, folder.config):
        named = said.get("decoder_start_token_id")
        if type(named) is int:
            return named
    return None
