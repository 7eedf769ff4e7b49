"""A checkpoint of Megatron-Core as the parameters of a model."""

import importlib
import importlib.util
from typing import Any

from jaxtyping import DTypeLike

from mjx import models
from mjx.errors import InputError
from mjx.models.common.parameter import Tree
from mjx.models.family import ModelConfig
from mjx.models.interop.load import load_parameters
from mjx.models.megatron.names import local_names
from mjx.models.megatron.torch_dist import TorchDistFolder


def load_checkpoint(
    checkpoint: TorchDistFolder, config: ModelConfig, abstract: Tree, dtype: DTypeLike | None = None
) -> Tree:
    """The parameters, each process reading what its own devices hold.

    Args:
        checkpoint: Where they are.
        config: Of the model, which the checkpoint does not say; what it does say is compared.
        abstract: Shapes with shardings, of every parameter.
        dtype: Of the parameters; None: as they are stored.

    Raises:
        InputError: Megatron-Core has no such model, the checkpoint is of another, or it is damaged.
    """
    table = _table(config)
    names = table.megatron_name_map(config)
    try:
        table.check_arguments(config, checkpoint.arguments)
        return load_parameters(names, local_names(checkpoint), abstract, dtype)
    except InputError as error:
        raise InputError(f"{checkpoint.path}: {error}") from error


def _table(config: ModelConfig) -> Any:
    """The module of the family that knows Megatron's names for it."""
    for family, package in models.FAMILIES.items():
        if isinstance(config, models.load_family(family).CONFIG):
            if importlib.util.find_spec(f"{package}.megatron") is None:
                raise InputError(f"model.family = {family} cannot be read from a Megatron checkpoint yet")
            return importlib.import_module(f"{package}.megatron")
    raise TypeError(f"{type(config)} is of no family")
