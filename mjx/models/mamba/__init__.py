"""Mamba, and hybrids of state spaces, attention, MLPs and experts."""

from mjx.models.family import Family
from mjx.models.interop.token_interface import CAUSAL
from mjx.models.mamba.config import MambaConfig
from mjx.models.mamba.huggingface import ARCHITECTURES
from mjx.models.mamba.megatron import MEGATRON
from mjx.models.mamba.published import PUBLISHED

FAMILY = Family(
    config=MambaConfig,
    published=PUBLISHED,
    architectures=ARCHITECTURES,
    megatron=MEGATRON,
    interface=CAUSAL,
)

__all__ = ["FAMILY", "PUBLISHED", "MambaConfig"]
