"""GPT: decoder-only language models."""

from mjx.models.family import Family
from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.huggingface import ARCHITECTURES
from mjx.models.gpt.megatron import MEGATRON
from mjx.models.gpt.published import PUBLISHED
from mjx.models.interop.token_interface import CAUSAL

FAMILY = Family(
    config=GPTConfig,
    published=PUBLISHED,
    architectures=ARCHITECTURES,
    megatron=MEGATRON,
    interface=CAUSAL,
)

__all__ = ["FAMILY", "PUBLISHED", "GPTConfig"]
