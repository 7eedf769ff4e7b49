"""Vision transformers: encoders of pictures."""

from mjx.models.family import Family
from mjx.models.vision.config import VisionConfig
from mjx.models.vision.huggingface import ARCHITECTURES
from mjx.models.vision.interface import INTERFACE

FAMILY = Family(config=VisionConfig, published={}, architectures=ARCHITECTURES, interface=INTERFACE)

__all__ = ["FAMILY", "VisionConfig"]
