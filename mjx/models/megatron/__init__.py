"""The adapter: checkpoints of Megatron-Core on any mesh."""

from mjx.models.interop.megatron.settings import read_settings, settings_of
from mjx.models.megatron.load import load_checkpoint
from mjx.models.megatron.names import is_parameter
from mjx.models.megatron.torch_dist import COMMON, TorchDistFolder

__all__ = ["COMMON", "TorchDistFolder", "is_parameter", "load_checkpoint", "read_settings", "settings_of"]
