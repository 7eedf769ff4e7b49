"""Language models that see."""

from mjx.models.family import Family
from mjx.models.multimodal.config import MultimodalConfig
from mjx.models.multimodal.huggingface import ARCHITECTURES
from mjx.models.multimodal.huggingface_native import NATIVE
from mjx.models.multimodal.interface import INTERFACE
from mjx.models.multimodal.megatron import MEGATRON

FAMILY = Family(
    config=MultimodalConfig,
    published={},
    architectures=(*ARCHITECTURES, *NATIVE),
    megatron=MEGATRON,
    interface=INTERFACE,
)

__all__ = ["FAMILY", "MultimodalConfig"]
