"""`mjx export RUN DIR`: the weights of a checkpoint alone, in a folder for Orbax or for transformers."""

from typing import Literal

import jax.numpy as jnp

from mjx.batch import size_of
from mjx.checkpoint.run_folder import RunFolder
from mjx.checkpoint.weights import save_weights
from mjx.data.config import DatasetConfig
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError
from mjx.launch.failure import end_together
from mjx.launch.runtime import start
from mjx.models.family import ModelConfig
from mjx.models.huggingface import PretrainedModel, save_pretrained
from mjx.parse import parse
from mjx.run.opened import OpenedModel, open_model, read_inference_config
from mjx.source import RunSource
from mjx.trees import Tree, read_yaml, to_yaml

Format = Literal["orbax", "huggingface"]


def export(
    path: str,
    directory: str,
    overrides: list[str],
    step: int | None,
    *,
    format: Format,
    dtype: str | None,
    clip: bool,
    architecture: str | None,
) -> None:
    """Write the newest checkpoint's weights (or those of `step`) and the config to a new folder."""
    with end_together():
        if format == "orbax":
            given = {"--dtype": dtype, "--clip": clip, "--architecture": architecture}
            for option in (name for name, value in given.items() if value):
                raise InputError(
                    f"{option} is for --format huggingface: the tensors of orbax are those of the run"
                )
        if clip and dtype is None:
            raise InputError("--clip is for --dtype: in their own type, all numbers are within its range")
        if not RunSource.is_one(path):
            raise InputError(f"{path} is not a run folder: it has no config.yaml")
        config = read_inference_config(path, overrides)
        processes = start(config.runtime)
        opened = open_model(path, config, step)
        if format == "orbax":
            recipe = RunFolder(path).config
            save_weights(directory, opened.parameters, to_yaml(read_yaml(recipe)))
            said = ""
        else:
            said = f" as a {_save_huggingface(path, opened, directory, dtype, clip, architecture)}"
        if processes.is_first:
            print(f"wrote the weights of step {opened.step} to {directory}{said}")


def _save_huggingface(
    path: str, opened: OpenedModel, directory: str, dtype: str | None, clip: bool, architecture: str | None
) -> str:
    """Returns the class that transformers will make of it."""
    model = PretrainedModel(
        opened.config.model,
        opened.parameters,
        mesh=opened.mesh,
        rules=opened.rules,
        source=opened.companions,
    )
    folder = opened.tokenizer_folder if opened.tokenizer_folder.exists() else None
    tokenizer = opened.tokenizer() if folder is not None else None
    trained_on = read_yaml(RunFolder(path).config).get("data")
    written = save_pretrained(
        model,
        directory,
        architecture=architecture,
        dtype=None if dtype is None else jnp.dtype(dtype),
        clip=clip,
        max_positions=None if trained_on is None else _longest_row(trained_on, opened.config.model),
        tokenizer=folder,
        token_ids={} if tokenizer is None else _token_ids(tokenizer, opened.config.model.vocabulary),
    )
    return written.class_name


def _token_ids(tokenizer: Tokenizer, vocabulary: int | None) -> dict[str, int]:
    """Those that the model has: transformers makes no table whose padding has no row."""
    named = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eod_id,
        "pad_token_id": tokenizer.pad_id,
    }
    return {
        name: token
        for name, token in named.items()
        if token is not None and (vocabulary is None or token < vocabulary)
    }


def _longest_row(data: Tree, model: ModelConfig) -> int:
    """Of what the run was trained on."""
    _, sequence = size_of(parse(DatasetConfig, data, "data").seen_by(model.sight).arrays(1))
    return sequence
