"""Vision transformers: encoders of pictures."""

from mjx.models.family import Family
from mjx.models.vision.config import VisionConfig
from mjx.models.vision.huggingface import ARCHITECTURES
from mjx.models.vision.interface import INTERFACE
from mjx.models.vision.megatron import MEGATRON
from mjx.models.vision.published import PUBLISHED

FAMILY = Family(
    config=VisionConfig,
    published=PUBLISHED,
    architectures=ARCHITECTURES,
    megatron=MEGATRON,
    interface=INTERFACE,
)

__all__ = ["FAMILY", "PUBLISHED", "VisionConfig"]
