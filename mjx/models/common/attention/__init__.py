"""Attention: of a sequence to itself and to a memory, on one device and on a mesh."""

from mjx.models.common.attention.self_attention import Attention, AttentionConfig

__all__ = ["Attention", "AttentionConfig"]
