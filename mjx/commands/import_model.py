"""`mjx import DIR RUN`: another library's checkpoint as a run folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mjx.checkpoint.checkpointer import Checkpointer
from mjx.checkpoint.run_folder import RunFolder
from mjx.config import InferenceConfig, apply_override, parse_config
from mjx.data.tokenizers import Tokenizer, load_tokenizer
from mjx.errors import InputError
from mjx.files import new_folder, partial_path
from mjx.launch.failure import end_together
from mjx.launch.primary import on_primary
from mjx.launch.runtime import start
from mjx.models.common.parameter import abstract_parameters
from mjx.models.family import ModelConfig, abstract_model
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.megatron import COMMON, TorchDistFolder, is_parameter, load_checkpoint, read_settings
from mjx.parse import check_keys, to_tree
from mjx.run.opened import check_vocabulary, open_model, read_inference_config, without_training
from mjx.sharding import build_mesh, use_mesh
from mjx.trees import Tree, read_yaml, to_yaml


def import_huggingface(path: str, run_dir: str, overrides: list[str]) -> None:
    """Make a run folder of a Hugging Face folder: config.yaml, the weights in float32 as step 0, the
    tokenizer, and what an export needs to give all of it back."""
    with end_together():
        config = read_inference_config(path, overrides)
        processes = start(config.runtime)
        source = HuggingFaceFolder(path)
        tokenizer = load_tokenizer(source.path) if source.tokenizer_files else None
        if tokenizer is not None:
            check_vocabulary(tokenizer, config.model, source.path)
        with _new_run(run_dir) as folder:
            opened = open_model(path, config, dtype=np.float32)
            _fill(folder, config.model, opened.parameters, tokenizer, source)
        if processes.is_first:
            count = config.model.num_parameters()
            print(f"imported {Path(path).name}, {count:,} parameters, into {run_dir}")


def import_megatron(path: str, run_dir: str, recipe: str | None, overrides: list[str]) -> None:
    """Make a run folder of a Megatron-Core checkpoint: the weights in float32 as step 0, the model that its
    arguments or the recipe say, and the recipe's tokenizer."""
    with end_together():
        checkpoint = TorchDistFolder(path, is_parameter)
        config, tokenizer_path = _read_recipe(checkpoint, recipe, overrides)
        processes = start(config.runtime)
        tokenizer = None if tokenizer_path is None else load_tokenizer(tokenizer_path)
        if tokenizer is not None:
            check_vocabulary(tokenizer, config.model, str(tokenizer_path))
        mesh, rules = build_mesh(config.mesh), config.sharding.build()
        with _new_run(run_dir) as folder:
            with use_mesh(mesh, rules):
                abstract = abstract_parameters(abstract_model(config.model), mesh, rules)
                parameters = load_checkpoint(checkpoint, config.model, abstract, np.float32)
            _fill(folder, config.model, parameters, tokenizer)
        if processes.is_first:
            count, step = config.model.num_parameters(), checkpoint.iteration
            after = "" if step is None else f" after {step} steps"
            print(f"imported {checkpoint.path.name}{after}, {count:,} parameters, into {run_dir}")


def _read_recipe(
    checkpoint: TorchDistFolder, recipe: str | None, overrides: list[str]
) -> tuple[InferenceConfig, str | None]:
    """What using the model takes, and its `data.tokenizer`: of a recipe, or of the checkpoint's arguments."""
    given = {} if recipe is None else read_yaml(recipe)
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
    return parse_config(tree, InferenceConfig), data["tokenizer"]


@contextlib.contextmanager
def _new_run(run_dir: str) -> Iterator[RunFolder]:
    """The run folder to fill, refused before anything is read; all of it appears at the end, or nothing."""
    files = contextlib.ExitStack()
    on_primary(lambda: files.enter_context(new_folder(run_dir)) and None)
    with contextlib.ExitStack() as cleaning:
        cleaning.push(files)
        yield RunFolder(partial_path(Path(run_dir).expanduser().resolve()))
        cleaning.pop_all()
    on_primary(files.close)


def _fill(
    folder: RunFolder,
    config: ModelConfig,
    parameters: Tree,
    tokenizer: Tokenizer | None,
    source: HuggingFaceFolder | None = None,
) -> None:
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
