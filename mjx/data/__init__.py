"""Text to batches: tokenizers, Megatron's `.bin`/`.idx`, the kinds of datasets, the loader."""

from mjx.data.config import DatasetConfig
from mjx.data.dataset import Batch, Dataset, Splits
from mjx.data.loader import Loader, evaluation_batches

__all__ = ["Batch", "Dataset", "DatasetConfig", "Loader", "Splits", "evaluation_batches"]
