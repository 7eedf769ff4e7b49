"""What a recipe with `init_from` takes over from there: the model, and the tokenizer."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from mjx.checkpoint.run_folder import RunFolder
from mjx.data.config import KINDS, DatasetConfig, load_kind
from mjx.errors import InputError
from mjx.models.family import load_family
from mjx.models.huggingface import read_config
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.parse import to_tree
from mjx.trees import Tree, flatten, merge, plain, read_yaml


def is_run_folder(path: str) -> bool:
    """Whether this is a run's folder of ours, which has a config.yaml."""
    return RunFolder(path).config.is_file()


def fill_in(recipe: Mapping[str, Any], path: str) -> Tree:
    """The recipe with the model of `path`, and with its tokenizer where the recipe names none.

    Raises:
        InputError: there is no model that mjx can read, or the recipe asks for another one.
    """
    started = recipe.get("run_dir")
    if isinstance(started, str) and is_run_folder(started):
        path = started  # has taken it over: resuming does not need what it began with
    if is_run_folder(path):
        source = dict(read_yaml(RunFolder(path).config)["model"])
        family, tokenizer = source.pop("family"), RunFolder(path).tokenizer
        has_tokenizer = tokenizer.exists()
    else:
        folder = HuggingFaceFolder(path)
        source = to_tree(read_config(folder)[1])
        family = source.pop("family")
        tokenizer, has_tokenizer = folder.path, bool(folder.tokenizer_files)
    recipe = dict(recipe)
    recipe["model"] = {"family": family, **_with_choices(source, recipe.get("model"), family, path)}
    data = recipe.get("data")
    if isinstance(data, dict) and data.get("tokenizer") is None and _takes_tokenizer(data):
        if has_tokenizer:
            recipe["data"] = {**data, "tokenizer": str(tokenizer)}
        elif data.get("corpus") is not None:
            raise InputError(f"init_from = {path} has no tokenizer: name the model's own as data.tokenizer")
    return recipe


def _takes_tokenizer(data: Tree) -> bool:
    """Whether the kind of data has text; of a kind that does not exist, parsing says so."""
    kind = data.get(DatasetConfig.tag.key, DatasetConfig.tag.default)
    return kind in KINDS and any(field.name == "tokenizer" for field in dataclasses.fields(load_kind(kind)))


def _with_choices(source: Tree, section: Any, family: str, path: str) -> Tree:
    """The model's tree with what the recipe's section may choose for given weights."""
    if section is None:
        return source
    if not isinstance(section, dict):
        raise InputError("the recipe's section 'model' is not a mapping")
    section = dict(section)
    if section.pop("family", family) != family:
        raise InputError(f"model.family is not {family}, which is that of init_from = {path}; leave it out")
    if "preset" in section:
        raise InputError(
            f"model.preset = {section['preset']} and init_from = {path}: the model is the latter's; leave "
            "the preset out"
        )
    free, known = load_family(family).config.training_choices, flatten(source)
    for name, value in flatten(section).items():
        if name not in free and not (name in known and plain(value) == known[name]):
            has = known.get(name, "not there")
            raise InputError(
                f"model.{name} = {value} differs from the model of init_from = {path}, where it is {has}; "
                f"leave it out (what a run may choose: {', '.join(free)})"
            )
    return merge(source, section)
