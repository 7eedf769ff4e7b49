"""Two towers: pictures and texts that belong together, told by the angle between what each is made into."""

from mjx.models.dual_encoder.config import DualEncoderConfig, ProjectionConfig
from mjx.models.dual_encoder.huggingface import ARCHITECTURES
from mjx.models.dual_encoder.interface import INTERFACE
from mjx.models.dual_encoder.published import PUBLISHED
from mjx.models.family import Family

FAMILY = Family(
    config=DualEncoderConfig,
    published=PUBLISHED,
    architectures=ARCHITECTURES,
    interface=INTERFACE,
)

__all__ = ["FAMILY", "DualEncoderConfig", "ProjectionConfig"]
