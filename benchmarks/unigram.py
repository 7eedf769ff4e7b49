"""What a recipe's validation loss is where nothing but the frequency of tokens is known.

Counts the labels of training samples (each token once more, so that none is impossible), and takes their
cross-entropy on the validation set: what a model has to be below to have learnt anything from what it reads.

Run: python benchmarks/unigram.py configs/bert/docs.yaml [key=value …]
"""

import sys

import numpy as np

from mjx.config import load_config

AT_ONCE = 64
SAMPLES = 16_384
"""Training samples that are counted, at most."""


def labels(dataset, samples: int):
    """Those that count, of the first samples."""
    for first in range(0, min(samples, len(dataset)), AT_ONCE):
        batch = dataset.read(np.arange(first, min(first + AT_ONCE, samples, len(dataset))))
        yield batch["labels"][batch["loss_mask"] > 0]


def main() -> None:
    config = load_config(sys.argv[1], sys.argv[2:])
    data = config.data.open(config.model.vocabulary)
    counts = np.ones(config.model.vocabulary, np.int64)
    for some in labels(data.dataset("train", SAMPLES), SAMPLES):
        counts += np.bincount(some, minlength=len(counts))
    surprise = np.log(counts.sum()) - np.log(counts)
    for name, dataset in data.validation().items():
        losses = np.concatenate([surprise[some] for some in labels(dataset, len(dataset))])
        print(f"{name or 'validation'}: unigram loss {losses.mean():.4f} of {len(losses):,} labels")


if __name__ == "__main__":
    main()
