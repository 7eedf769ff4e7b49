"""Language models that see."""

from mjx.models.family import Family
from mjx.models.multimodal.config import MultimodalConfig

FAMILY = Family(config=MultimodalConfig, published={})

__all__ = ["FAMILY", "MultimodalConfig"]
