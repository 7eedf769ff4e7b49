"""Vision transformers: encoders of pictures."""

from mjx.models.family import Family
from mjx.models.vision.config import VisionConfig
from mjx.models.vision.huggingface import ARCHITECTURES
from mjx.models.vision.interface import INTERFACE
from mjx.models.vision.megatron import MEGATRON

FAMILY = Family(
    config=VisionConfig,
    published={},
    architectures=ARCHITECTURES,
    megatron=MEGATRON,
    interface=INTERFACE,
)

__all__ = ["FAMILY", "VisionConfig"]
