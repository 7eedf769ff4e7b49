"""GPT: decoder-only language models."""

from mjx.models.gpt.config import GPTConfig
from mjx.models.gpt.model import GPT
from mjx.models.gpt.published import PUBLISHED

CONFIG = GPTConfig

__all__ = ["CONFIG", "GPT", "PUBLISHED", "GPTConfig"]
