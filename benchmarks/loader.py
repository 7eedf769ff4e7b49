"""Tokens per second that one process reads from `.bin`/`.idx`, without a model.

Run: python benchmarks/loader.py [rows] [mean document length]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mjx.data import Loader
from mjx.data.gpt import GPTDatasetConfig
from mjx.data.indexed import IndexedDatasetWriter
from mjx.data.text import SourceConfig

SEQUENCE = 4096
TOKENS = 400_000_000


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    mean = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        prefix = Path(folder, "tokens")
        with IndexedDatasetWriter(prefix, np.uint16) as writer:
            for _ in range(20):
                lengths = random.integers(1, 2 * mean, TOKENS // 20 // mean)
                tokens = random.integers(0, 256, int(lengths.sum()))
                tokens[np.cumsum(lengths) - 1] = 256
                writer.add_documents(tokens, lengths)
        plain = GPTDatasetConfig(
            sources=(SourceConfig(path=str(prefix)),),
            tokenizer="byte",
            sequence_length=SEQUENCE,
            cache_dir=folder,
        )
        masked = {"document_mask": True, "reset_positions": True, "mask_eod_loss": True}
        for name, options in (("windows", {}), ("windows, masked", masked), ("packed", {"packing": True})):
            config = GPTDatasetConfig(**{**vars(plain), **options})
            dataset = config.open().dataset("train")
            for prefetch, threads in ((0, 1), (2, 1), (4, 2)):
                loader = Loader(dataset, rows, prefetch=prefetch, threads=threads)
                next(loader)
                start, steps = time.perf_counter(), min(loader.num_steps - 1, 1500)
                for _ in range(steps):
                    next(loader)
                speed = steps * rows * SEQUENCE / (time.perf_counter() - start)
                print(
                    f"{name:16s} {rows} rows, documents of {mean}, prefetch {prefetch}, threads {threads}: "
                    f"{speed / 1e6:6.1f} M tokens/s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
