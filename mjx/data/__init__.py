"""Text to batches: tokenizers, Megatron's `.bin`/`.idx`, the datasets, the loader."""

from mjx.data.config import DataConfig, SourceConfig
from mjx.data.dataset import Batch, Dataset
from mjx.data.loader import Loader, evaluation_batches
from mjx.data.open import TrainingData, open_data

__all__ = [
    "Batch",
    "DataConfig",
    "Dataset",
    "Loader",
    "SourceConfig",
    "TrainingData",
    "evaluation_batches",
    "open_data",
]
