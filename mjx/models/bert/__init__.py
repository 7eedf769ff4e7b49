"""BERT: encoders of text."""

from mjx.models.bert.config import BertConfig
from mjx.models.bert.huggingface import ARCHITECTURES
from mjx.models.bert.interface import INTERFACE
from mjx.models.bert.megatron import MEGATRON
from mjx.models.bert.published import PUBLISHED
from mjx.models.family import Family

FAMILY = Family(
    config=BertConfig,
    published=PUBLISHED,
    architectures=ARCHITECTURES,
    megatron=MEGATRON,
    interface=INTERFACE,
)

__all__ = ["FAMILY", "PUBLISHED", "BertConfig"]
