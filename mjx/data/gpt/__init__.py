"""Rows of a token stream and of packed documents, in Megatron's order."""

from mjx.data.gpt.config import GPTDatasetConfig

CONFIG = GPTDatasetConfig

__all__ = ["CONFIG", "GPTDatasetConfig"]
