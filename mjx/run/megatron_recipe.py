"""A recipe of Megatron-LM's arguments, and what of them it does not take."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from mjx.config import parse_config
from mjx.errors import InputError
from mjx.models.interop.megatron.settings import megatron_model, read_settings
from mjx.models.interop.megatron.spelling import argument_name, spelled
from mjx.models.megatron.shell import UNDER_CONDITION
from mjx.parse import Tag
from mjx.run.megatron_keys import RUN, copies_of
from mjx.run.megatron_left_out import reason
from mjx.trees import Tree, plain, to_yaml

_PATHS = ("data_path", "tokenizer_model", "vocab_file", "merge_file", "save", "data_cache_path")
"""Arguments whose values may stay open: whoever uses the recipe fills them in."""


_HARMLESS = ("tokenizer_type", "wandb_project", "wandb_entity")
"""Those without which a recipe is complete."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What came of Megatron-LM's arguments."""

    tree: Tree
    """What `mjx train` takes."""
    notes: tuple[str, ...]
    """What is to fill in."""
    left: Mapping[str, tuple[Any, str]]
    """Arguments that are not taken → value, and why."""


def make_recipe(settings: Mapping[str, Any], left_open: Mapping[str, str], where: str) -> Recipe:
    """A recipe of Megatron-LM's arguments.

    Args:
        settings: By their names.
        left_open: Those whose value is not known, as they are written.
        where: What sentences call them.

    Raises:
        InputError: mjx would compute something else than they say; the sentence has all of it.
    """
    given = {key.lstrip("-").replace("-", "_"): value for key, value in settings.items()}
    paths = {key: text for key, text in left_open.items() if key in _PATHS and "$(" not in text}
    arguments = {**spelled(given, where), **paths}
    refused: list[str] = []
    sections: Tree = {}
    model: Tree = {}
    known: set[str] = set(RUN.known)
    try:
        _, config = read_settings(given, where)
        model = _said(config)
        whole = megatron_model(config)
        known |= whole.settings.known.union(
            *(megatron_model(part).settings.known for part in whole.parts(config))
        )
        if whole.parts(config) and arguments.get("decoder_seq_length"):
            # The sequence of a script is then that of its encoder, which follows from its pictures.
            arguments.pop("encoder_seq_length", None)
            arguments["seq_length"] = arguments["decoder_seq_length"]
    except InputError as error:
        refused.append(str(error))
    try:
        sections = RUN.to_tree(arguments, where)
    except InputError as error:
        refused.append(str(error))
    still_open = {
        key: text for key, text in left_open.items() if key in known and key not in (*_PATHS, *_HARMLESS)
    }
    if still_open:
        said = ", ".join(f"{_flag(key)} ({_shown(text)})" for key, text in still_open.items())
        refused.append(f"{where} leaves open {said}: give their values as NAME=VALUE")
    if refused:
        raise InputError("; ".join(refused))
    notes = _fill_in_data(sections, where)
    if "language_model_type" in arguments:
        notes.append(f"{where} trains on texts with pictures: put data of that kind in the place of `data`.")
    tree = {"model": model, **{name: sections[name] for name in _ORDER if name in sections}}
    parse_config(tree)  # whose sentences name what does not go together
    left = {name: (value, reason(name)) for name, value in given.items() if _is_left(name, given, known)}
    left |= {
        name: (text, "the script does not say it") for name, text in left_open.items() if name not in paths
    }
    return Recipe(tree, tuple(notes), left)


_ORDER = (
    *("data", "training", "mesh", "sharding", "optimizer", "schedule", "checkpoint", "logging", "run_dir"),
)


def recipe_text(recipe: Recipe, where: str) -> str:
    """As YAML, with what is not taken as comments at its end."""
    lines = [f"# Made of {where}, Megatron-LM's arguments, by mjx recipe."]
    lines += [f"# {note}" for note in recipe.notes]
    text = "\n".join(lines) + "\n" + to_yaml(plain(recipe.tree))
    if recipe.left:
        text += f"\n# These arguments of {where} are not in the recipe:\n"
        for name, (value, reason) in recipe.left.items():
            shown = (
                ""
                if value is True
                else f" {value if isinstance(value, str) else json.dumps(value, default=str)}"
            )
            text += f"#   {_flag(name)}{shown}".replace("\n", " ") + f": {reason}\n"
    return text


def _said(config: Any) -> Tree:
    """The fields of a config that are not as by default."""
    tag: Tag | None = getattr(type(config), "tag", None)
    said: Tree = {} if tag is None else {tag.key: getattr(config, tag.key)}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default and type(value) is type(field.default):
            continue
        said[field.name] = _said(value) if dataclasses.is_dataclass(value) else plain(value)
    return said


def _fill_in_data(sections: Tree, where: str) -> list[str]:
    notes = []
    data = sections["data"]
    if "sources" not in data:
        data["sources"] = [{"path": "DATA"}]
        notes.append(f"{where} names no data: put the path of a .bin/.idx pair for DATA.")
    texts = [data.get("tokenizer"), sections.get("run_dir"), *(source["path"] for source in data["sources"])]
    unknown = dict.fromkeys(name for text in texts for name in re.findall(r"\$\{?\w+\}?", text or ""))
    if unknown:
        notes.append(
            f"Put paths for {', '.join(unknown)}, which the script takes from the shell that runs it."
        )
    return notes


def _is_left(name: str, arguments: Mapping[str, Any], known: set[str]) -> bool:
    value = arguments[name]
    if name == "micro_batch_size":
        return copies_of(arguments) is None
    if name == "fp16":  # read, and done in another way
        return bool(value)
    if name == "pipeline_model_parallel_size":
        return (value or 1) > 1
    return name != "program" and value not in (None, False, "", [], {}) and argument_name(name) not in known


def _shown(text: str) -> str:
    return text.replace(UNDER_CONDITION, "given under a condition")


def _flag(name: str) -> str:
    return name if name.startswith("$") else f"--{name.replace('_', '-')}"
