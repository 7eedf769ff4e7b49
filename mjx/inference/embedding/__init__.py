"""Embeddings of texts: an encoder's states, pooled."""

from mjx.inference.embedding.embedder import Embedder
from mjx.inference.embedding.pooling import POOLING, pool
from mjx.inference.embedding.texts import TextEmbedder

__all__ = ["POOLING", "Embedder", "TextEmbedder", "pool"]
