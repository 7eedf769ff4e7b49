"""Where a model comes from: a run of ours, or a folder in Hugging Face's layout."""

import dataclasses
import functools
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import DTypeLike

from mjx.checkpoint.checkpointer import Checkpointer
from mjx.checkpoint.run_folder import RunFolder
from mjx.data.config import KINDS, DatasetConfig, load_kind
from mjx.errors import InputError
from mjx.files import local_path, new_folder
from mjx.launch.primary import on_primary
from mjx.models.family import ModelConfig, load_family
from mjx.models.huggingface import load_pretrained, read_config
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.huggingface.generation import sampling_of, start_token_of
from mjx.parse import parse, to_tree
from mjx.trees import Tree, flatten, merge, plain, read_yaml


class RunSource:
    """A run's folder: its config.yaml says the model, its checkpoints are the weights."""

    def __init__(self, folder: RunFolder):
        self.path, self._folder = folder.path, folder
        self.tokenizer_folder = folder.tokenizer
        self.has_tokenizer = folder.tokenizer.exists()

    @staticmethod
    def is_one(path: str | os.PathLike[str]) -> bool:
        """Whether this is a run's folder of ours, which has a config.yaml."""
        return RunFolder(path).config.is_file()

    @functools.cached_property
    def companions(self) -> HuggingFaceFolder | None:
        """What lay beside the weights that the run began with, if they were another library's."""
        folder = self._folder.huggingface
        return HuggingFaceFolder(folder) if folder.is_dir() else None

    def recipe(self) -> Tree:
        """The resolved config that the run was made with."""
        return read_yaml(self._folder.config)

    def load(
        self,
        config: ModelConfig,
        abstract: Tree,
        *,
        step: int | None = None,
        dtype: DTypeLike | None = None,
        optional: Collection[str] = (),
    ) -> tuple[Tree, int | None]:
        """The parameters of the newest checkpoint, or of `step`, on `abstract`'s shardings and in its types;
        and their step.

        Raises:
            InputError: there is no such checkpoint, or it is of another model.
        """
        with Checkpointer(self._folder.checkpoints) as checkpointer:
            wanted = {"parameters": abstract}
            if step is not None:
                return checkpointer.restore(wanted, step, partial=True)[0]["parameters"], step
            if checkpointer.latest_step() is None:
                raise InputError(f"{self.path} has no checkpoint yet")
            state, _, step = checkpointer.restore_newest(wanted, partial=True)
            return state["parameters"], step


class HuggingFaceSource:
    """A folder with config.json, safetensors and perhaps a tokenizer."""

    def __init__(self, folder: HuggingFaceFolder):
        self.path, self.companions = folder.path, folder
        self.tokenizer_folder = folder.path
        self.has_tokenizer = bool(folder.tokenizer_files)

    def recipe(self) -> Tree:
        """The model that config.json describes.

        Raises:
            InputError: mjx does not know the model, or would compute it differently.
        """
        return {"model": to_tree(read_config(self.companions)[1])}

    def load(
        self,
        config: ModelConfig,
        abstract: Tree,
        *,
        step: int | None = None,
        dtype: DTypeLike | None = None,
        optional: Collection[str] = (),
    ) -> tuple[Tree, int | None]:
        """The parameters on `abstract`'s shardings, in `dtype` (None: as they are stored); they have no step.
        Those that are `optional` are left out where the folder lacks them.

        Raises:
            InputError: a step is asked for, a file is damaged, or the tensors are not those of the model.
        """
        if step is not None:
            raise InputError(f"--step {step}: {self.path} is a Hugging Face folder, which has no steps")
        return load_pretrained(self.companions, config, abstract, dtype, optional), None


Source = RunSource | HuggingFaceSource


def open_source(path: str | os.PathLike[str]) -> Source:
    """What is at `path`; a folder that is both is a run, whose config.yaml says more.

    Raises:
        InputError: there is no such folder, it is neither, or its config.json is damaged.
    """
    if RunSource.is_one(path):
        return RunSource(RunFolder(path))
    try:
        return HuggingFaceSource(HuggingFaceFolder(path))
    except InputError as error:
        if os.path.isdir(local_path(path)) and not HuggingFaceFolder.is_one(path):
            raise InputError(f"{error} Nor is it a run folder: it has no config.yaml.") from error
        raise


def keep_companions(source: Source, folder: Path) -> None:
    """What lay beside the weights (config.json, tokenizer), in the new folder `folder`, for an export."""
    companions = source.companions

    def copy() -> None:
        if companions is not None and not folder.exists():
            with new_folder(folder) as partial:
                companions.copy_companions(partial)

    on_primary(copy)


def fill_in(recipe: Mapping[str, Any], path: str) -> Tree:
    """The recipe with the model of `init_from = path`, and where the recipe does not say them, its tokenizer,
    what its decoder begins with, and what must be in its texts.

    Raises:
        InputError: there is no model that mjx can read, or the recipe asks for another one.
    """
    started = recipe.get("run_dir")
    if isinstance(started, str) and RunSource.is_one(started):
        path = started  # has taken it over: resuming does not need what it began with
    source = open_source(path)
    model = dict(source.recipe()["model"])
    family = model.pop("family")
    recipe = dict(recipe)
    recipe["model"] = {"family": family, **_with_choices(model, recipe.get("model"), family, path)}
    data = recipe.get("data")
    recipe = with_sampling(recipe, source)
    if isinstance(data, dict) and data.get("start") is None and _takes(data, "start"):
        start = None if source.companions is None else start_token_of(source.companions)
        recipe["data"] = data = data if start is None else {**data, "start": start}
    if isinstance(data, dict) and data.get("tokenizer") is None and _takes(data, "tokenizer"):
        if source.has_tokenizer:
            recipe["data"] = {**data, "tokenizer": str(source.tokenizer_folder)}
        elif data.get("corpus") is not None:
            raise InputError(f"init_from = {path} has no tokenizer: name the model's own as data.tokenizer")
    return recipe


def with_sampling(tree: Tree, source: Source) -> Tree:
    """With what the folder of a Hugging Face model says of how it continues text, where `tree` does not.

    Raises:
        InputError: a value there is none that mjx knows.
    """
    given = tree.get("sampling")
    said = {} if source.companions is None else sampling_of(source.companions)
    if not said or not isinstance(given, dict | None):
        return tree
    return {**tree, "sampling": {**said, **(given or {})}}


def _takes(data: Tree, name: str) -> bool:
    """Whether the kind of data has this field; of a kind that does not exist, parsing says so."""
    kind = data.get(DatasetConfig.tag.key, DatasetConfig.tag.default)
    return kind in KINDS and any(field.name == name for field in dataclasses.fields(load_kind(kind)))


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
    source = _with_heads(_with_experts(source, section, family), section, family)
    free, known = load_family(family).config.training_choices, flatten(source)
    for name, value in flatten(section).items():
        if name not in free and not (name in known and plain(value) == known[name]):
            has = known.get(name, "not there")
            raise InputError(
                f"model.{name} = {value} differs from the model of init_from = {path}, where it is {has}; "
                f"leave it out (what a run may choose: {', '.join(free)})"
            )
    return merge(source, section)


def _with_experts(source: Tree, section: Tree, family: str) -> Tree:
    """The source's tree; where the recipe's model has experts in the place of its MLPs, with them."""
    upcycled = load_family(family).config.upcycled_tree(source, section)
    if upcycled is None:
        return source
    dense, model = (parse(ModelConfig, {"family": family, **tree}, "model") for tree in (source, upcycled))
    model.upcycling(dense)  # which says what cannot be
    return {name: value for name, value in upcycled.items() if name != "family"}


def _with_heads(source: Tree, section: Tree, family: str) -> Tree:
    """The source's tree; where the recipe asks for other heads, with them."""
    reheaded = load_family(family).config.reheaded_tree(source, section)
    return source if reheaded is None else reheaded
