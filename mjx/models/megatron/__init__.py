"""The adapter: checkpoints of Megatron-Core on any mesh."""

from mjx.models.megatron.load import load_checkpoint
from mjx.models.megatron.names import is_parameter
from mjx.models.megatron.torch_dist import TorchDistFolder

__all__ = ["TorchDistFolder", "is_parameter", "load_checkpoint"]
