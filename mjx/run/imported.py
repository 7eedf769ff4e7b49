"""A run folder made of a model that another library trained."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mjx.checkpoint.checkpointer import Checkpointer
from mjx.checkpoint.run_folder import RunFolder
from mjx.config import InferenceConfig, apply_override, parse_config
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError
from mjx.files import LocalPath, local_path, new_folder, partial_path
from mjx.launch.primary import on_primary
from mjx.models.family import ModelConfig
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.megatron import COMMON, TorchDistFolder, read_settings
from mjx.parse import check_keys, parse, to_tree
from mjx.run.opened import without_training
from mjx.trees import Tree, read_untyped, to_yaml


def read_recipe(
    checkpoint: TorchDistFolder, recipe: str | None, overrides: list[str]
) -> tuple[InferenceConfig, str | None]:
    """What using the model takes, and its `data.tokenizer`: of a recipe, or of the checkpoint's arguments."""
    given = {} if recipe is None else read_untyped(recipe)
    tree = without_training(given)
    data = given.get("data")
    tree["data"] = {"tokenizer": data.get("tokenizer") if isinstance(data, dict) else None}
    if recipe is None and checkpoint.arguments:
        _, model = read_settings(checkpoint.arguments, str(checkpoint.path / COMMON))
        tree["model"] = to_tree(model)
    elif recipe is None and not any(override.startswith("model.") for override in overrides):
        raise InputError(
            f"{checkpoint.path} does not hold the arguments of its run, and so does not say what model it is "
            "of: give --config RECIPE, whose section 'model' does, or the model's settings as overrides "
            "(model.family=… model.num_layers=…)"
        )
    for override in overrides:
        apply_override(tree, override)
    data = tree.pop("data")
    check_keys(data, {"tokenizer": str}, "data.")
    tokenizer = parse(LocalPath | None, data["tokenizer"], "data.tokenizer")
    return parse_config(tree, InferenceConfig), tokenizer


@contextlib.contextmanager
def new_run(run_dir: str) -> Iterator[RunFolder]:
    """The run folder to fill, refused before anything is read; all of it appears at the end, or nothing."""
    files = contextlib.ExitStack()
    on_primary(lambda: files.enter_context(new_folder(run_dir)) and None)
    with contextlib.ExitStack() as cleaning:
        cleaning.push(files)
        yield RunFolder(partial_path(Path(local_path(run_dir)).resolve()))
        cleaning.pop_all()
    on_primary(files.close)


def fill(
    folder: RunFolder,
    config: ModelConfig,
    parameters: Tree,
    tokenizer: Tokenizer | None,
    source: HuggingFaceFolder | None = None,
) -> None:
    """Puts into a run folder what makes it one: config.yaml, the weights as step 0, the tokenizer, and what
    an export gives back."""
    tree = {"model": to_tree(config)}  # the mesh was that of the import
    with Checkpointer(folder.checkpoints) as checkpointer:
        checkpointer.save(0, {"parameters": parameters}, data_state={}, config=tree, wait=True)

    def finish() -> None:
        if source is not None:
            folder.huggingface.mkdir()
            source.copy_companions(folder.huggingface)
        if tokenizer is not None:
            tokenizer.save(folder.tokenizer)
        folder.config.write_text(to_yaml(tree), encoding="utf-8")

    on_primary(finish)
