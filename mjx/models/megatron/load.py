"""A checkpoint of Megatron-Core as the parameters of a model."""

from jaxtyping import DTypeLike

from mjx.errors import InputError
from mjx.models.common.parameter import precise_parameters
from mjx.models.family import ModelConfig, abstract_model
from mjx.models.interop.load import load_parameters
from mjx.models.interop.megatron.settings import check_settings, megatron_model
from mjx.models.megatron.names import local_names
from mjx.models.megatron.torch_dist import COMMON, TorchDistFolder
from mjx.trees import Tree


def load_checkpoint(
    checkpoint: TorchDistFolder, config: ModelConfig, abstract: Tree, dtype: DTypeLike | None = None
) -> Tree:
    """The parameters, each process reading what its own devices hold.

    Args:
        checkpoint: Where they are.
        config: Of the model; what the checkpoint says of it is compared.
        abstract: Shapes with shardings, of every parameter.
        dtype: Of the parameters; None: as they are stored.

    Raises:
        InputError: Megatron-Core has no such model, the checkpoint is of another, or it is damaged.
    """
    names = megatron_model(config).name_map(config)
    try:
        check_settings(config, checkpoint.arguments, COMMON)
        precise = precise_parameters(abstract_model(config))
        return load_parameters(names, local_names(checkpoint), abstract, dtype, precise)
    except InputError as error:
        raise InputError(f"{checkpoint.path}: {error}") from error
