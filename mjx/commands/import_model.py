"""`mjx import DIR RUN`: another library's checkpoint as a run folder."""

import logging
from pathlib import Path

import numpy as np

from mjx.data.tokenizers import Tokenizer, load_tokenizer
from mjx.errors import InputError
from mjx.launch.failure import end_together
from mjx.launch.runtime import start
from mjx.models.common.parameter import abstract_parameters
from mjx.models.family import abstract_model
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.megatron import TorchDistFolder, is_parameter, load_checkpoint
from mjx.run.imported import fill, new_run, read_recipe
from mjx.run.opened import open_model, read_inference_config
from mjx.run.vocabulary import compare_vocabularies
from mjx.sharding import build_mesh, use_mesh


def import_huggingface(path: str, run_dir: str, overrides: list[str]) -> None:
    """Make a run folder of a Hugging Face folder: config.yaml, the weights in float32 as step 0, the
    tokenizer, and what an export needs to give all of it back."""
    with end_together():
        config = read_inference_config(path, overrides)
        processes = start(config.runtime)
        source = HuggingFaceFolder(path)
        tokenizer = _tokenizer_beside(source)
        if tokenizer is not None:
            compare_vocabularies(tokenizer, config.model.vocabulary, source.path)
        with new_run(run_dir) as folder:
            opened = open_model(path, config, dtype=np.float32)
            fill(folder, config.model, opened.parameters, tokenizer, source)
        if processes.is_first:
            count = config.model.num_parameters()
            print(f"imported {Path(path).name}, {count:,} parameters, into {run_dir}")


def _tokenizer_beside(source: HuggingFaceFolder) -> Tokenizer | None:
    """The weights need none: one that cannot be read is warned of, and its files are kept for an export."""
    if not source.tokenizer_files:
        return None
    try:
        return load_tokenizer(source.path)
    except InputError as error:
        logging.getLogger("mjx").warning("the run will have no tokenizer: %s", error)
        return None


def import_megatron(path: str, run_dir: str, recipe: str | None, overrides: list[str]) -> None:
    """Make a run folder of a Megatron-Core checkpoint: the weights in float32 as step 0, the model that its
    arguments or the recipe say, and the recipe's tokenizer."""
    with end_together():
        checkpoint = TorchDistFolder(path, is_parameter)
        config, tokenizer_path = read_recipe(checkpoint, recipe, overrides)
        processes = start(config.runtime)
        tokenizer = None if tokenizer_path is None else load_tokenizer(tokenizer_path)
        if tokenizer is not None:
            compare_vocabularies(tokenizer, config.model.vocabulary, str(tokenizer_path))
        mesh, rules = build_mesh(config.mesh), config.sharding.build()
        with new_run(run_dir) as folder:
            with use_mesh(mesh, rules):
                abstract = abstract_parameters(abstract_model(config.model), mesh, rules)
                parameters = load_checkpoint(checkpoint, config.model, abstract, np.float32)
            fill(folder, config.model, parameters, tokenizer)
        if processes.is_first:
            count, step = config.model.num_parameters(), checkpoint.iteration
            after = "" if step is None else f" after {step} steps"
            print(f"imported {checkpoint.path.name}{after}, {count:,} parameters, into {run_dir}")
