"""RETRO: a language model that looks at texts which are like its own."""

from mjx.models.family import Family
from mjx.models.retro.config import RetroConfig
from mjx.models.retro.megatron import MEGATRON

FAMILY = Family(config=RetroConfig, published={}, megatron=MEGATRON)

__all__ = ["FAMILY", "RetroConfig"]
