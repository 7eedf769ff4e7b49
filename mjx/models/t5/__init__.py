"""T5: encoder-decoders of text."""

from mjx.models.family import Family
from mjx.models.t5.config import T5Config
from mjx.models.t5.huggingface import ARCHITECTURES
from mjx.models.t5.interface import INTERFACE
from mjx.models.t5.megatron import MEGATRON
from mjx.models.t5.published import PUBLISHED

FAMILY = Family(
    config=T5Config,
    published=PUBLISHED,
    architectures=ARCHITECTURES,
    megatron=MEGATRON,
    interface=INTERFACE,
)

__all__ = ["FAMILY", "PUBLISHED", "T5Config"]
