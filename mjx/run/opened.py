"""A trained model, opened for use on any mesh: of a run folder, or of a Hugging Face folder."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from mjx.config import InferenceConfig, RunConfig, apply_override, parse_config
from mjx.data.config import DatasetConfig
from mjx.data.tokenizers import Tokenizer, load_tokenizer
from mjx.errors import InputError
from mjx.models.common.parameter import abstract_parameters
from mjx.models.family import abstract_model
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.huggingface.generation import start_token_of
from mjx.parse import parse
from mjx.run.vocabulary import compare_vocabularies
from mjx.sharding import Rules, build_mesh, use_mesh
from mjx.source import open_source, with_sampling
from mjx.trees import Tree


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model with its weights, laid out."""

    config: InferenceConfig
    mesh: Mesh
    rules: Rules
    model: Any
    """The definition; `bind(model, parameters)` is the model."""
    parameters: Tree
    step: int | None
    """Of the run's checkpoint; None of a Hugging Face folder."""
    tokenizer_folder: Path
    """Where its tokenizer is, if it has one."""
    companions: HuggingFaceFolder | None
    """What lies beside the weights of a Hugging Face model, or of a run that began with one."""
    recipe: Tree
    """What the folder says of the model, and of a run."""

    def data(self) -> DatasetConfig | None:
        """What the run has read; None of a model that no run of ours has trained."""
        section = self.recipe.get("data")
        return None if section is None else parse(DatasetConfig, section, "data")

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer.

        Raises:
            InputError: it has none, or one that cannot be read.
        """
        if not self.tokenizer_folder.exists():
            raise InputError(f"{self.tokenizer_folder.parent} has no tokenizer, which a text needs")
        tokenizer = load_tokenizer(self.tokenizer_folder)
        compare_vocabularies(tokenizer, self.config.model.vocabulary, self.tokenizer_folder)
        return tokenizer

    def start_token(self) -> int | None:
        """What the decoder of a Hugging Face model with an encoder begins with; None: nothing says it."""
        return None if self.companions is None else start_token_of(self.companions)

    def stop_tokens(self) -> tuple[int, ...]:
        """What ends a text besides the tokenizer's end of document, by generation_config.json."""
        if self.companions is not None:
            for said in (self.companions.generation_config, self.companions.config):
                named = said.get("eos_token_id")
                if named is not None:
                    return _ids(named)
        return ()


def _ids(named: Any) -> tuple[int, ...]:
    """Token ids as configs have them: one or a list. What is no id stops nothing, and is warned of."""
    listed = named if isinstance(named, list) else [named]
    ids = tuple(token for token in listed if type(token) is int and 0 <= token < 2**31)
    if len(ids) < len(listed):
        logging.getLogger("mjx").warning("eos_token_id = %s: only %s are token ids", named, list(ids))
    return ids


def without_training(recipe: Tree) -> Tree:
    """The sections of a recipe that using its model takes; unknown ones stay, to be refused."""
    sections = {field.name for field in dataclasses.fields(InferenceConfig)}
    training = {field.name for field in dataclasses.fields(RunConfig)} - sections
    return {key: value for key, value in recipe.items() if key not in training}


def read_inference_config(path: str, overrides: Sequence[str] = ()) -> InferenceConfig:
    """What a folder says of its model, with overrides (of mesh, sampling, runtime; the model is what it is).

    Raises:
        InputError: the folder is neither a run nor a Hugging Face model that mjx knows.
    """
    source = open_source(path)
    tree = with_sampling(without_training(source.recipe()), source)
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree, InferenceConfig)


def open_model(path: str, config: InferenceConfig, step: int | None = None, dtype: Any = None) -> OpenedModel:
    """Lay the weights of a Hugging Face folder, or of a run's checkpoint, out over `config.mesh`.

    Args:
        path: The folder.
        config: What `read_inference_config` made of it.
        step: Which checkpoint of a run; None: the newest.
        dtype: Of the parameters of a Hugging Face folder; None: as they are stored.

    Raises:
        InputError: there is no such checkpoint, or the weights are not those of the model.
    """
    source = open_source(path)
    mesh, rules = build_mesh(config.mesh), config.sharding.build()
    with use_mesh(mesh, rules):
        model = abstract_model(config.model)
        abstract = abstract_parameters(model, mesh, rules)
        parameters, step = source.load(config.model, abstract, step=step, dtype=dtype)
    return OpenedModel(
        *(config, mesh, rules, model, parameters, step, source.tokenizer_folder, source.companions),
        source.recipe(),
    )
