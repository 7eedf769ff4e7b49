"""`mjx recipe --from-megatron SOURCE`: a recipe of another library's settings."""

import json
from pathlib import Path
from typing import Any

from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError
from mjx.files import local_path
from mjx.models.megatron import COMMON, TorchDistFolder, is_parameter
from mjx.models.megatron.command_line import read_script, scalar
from mjx.run.megatron_recipe import make_recipe, recipe_text


def recipe_of_megatron(source: str, more: list[str]) -> None:
    """Print a recipe of Megatron-LM's arguments: a shell script's, a JSON object's or a checkpoint's, with
    those of `more` in addition or instead (`vocab-size=50257`, `decoupled-lr=null`)."""
    settings, left_open, where = _read(Path(source))
    for argument in more:
        name, equals, value = argument.partition("=")
        name = name.lstrip("-").replace("-", "_")
        if not equals or not name:
            raise InputError(f"'{argument}' is not an argument with its value; write e.g. vocab-size=50257")
        settings[name] = None if value == "null" else scalar(value)
        left_open.pop(name, None)
    _count_vocabulary(settings)
    print(recipe_text(make_recipe(settings, left_open, where), where), end="")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str], str]:
    if path.is_dir():
        checkpoint = TorchDistFolder(path, is_parameter)
        if not checkpoint.arguments:
            raise InputError(f"{checkpoint.path} does not hold the arguments of its run")
        return checkpoint.arguments, {}, f"{checkpoint.path.name}/{COMMON}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text; give a shell script, a JSON file or a checkpoint"
        ) from error
    if path.suffix.lower() != ".json":
        return *read_script(text, path.name), path.name
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path} is not an object of arguments")
    return settings, {}, path.name


def _count_vocabulary(settings: dict[str, Any]) -> None:
    """Megatron takes the number of token ids from the tokenizer, as we do where it is here."""
    path = settings.get("tokenizer_model")
    if path is None and isinstance(settings.get("vocab_file"), str):
        path = str(Path(settings["vocab_file"]).parent)
    said = settings.get("vocab_size") or settings.get("padded_vocab_size")
    if said is None and isinstance(path, str) and Path(path := local_path(path)).exists():
        settings["vocab_size"] = load_tokenizer(path).vocab_size
