"""A checkpoint of Megatron-Core as the parameters of a model."""

from jaxtyping import DTypeLike

from mjx.errors import InputError
from mjx.models.family import ModelConfig, load_family
from mjx.models.interop.load import load_parameters
from mjx.models.megatron.names import local_names
from mjx.models.megatron.torch_dist import TorchDistFolder
from mjx.trees import Tree


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
    theirs = load_family(config.family).megatron
    if theirs is None:
        raise InputError(f"model.family = {config.family} cannot be read from a Megatron checkpoint yet")
    names = theirs.name_map(config)
    try:
        theirs.check_arguments(config, checkpoint.arguments)
        return load_parameters(names, local_names(checkpoint), abstract, dtype)
    except InputError as error:
        raise InputError(f"{checkpoint.path}: {error}") from error
