"""Time and memory of the sample map of data that hides tokens: 10 million sentences in documents of several
sizes; and of its rows, of 512 tokens.

Run: python benchmarks/masked_data.py
"""

import resource
import tempfile
import time

import numpy as np

from mjx.data.indexed import IndexedDataset, IndexedDatasetWriter
from mjx.data.masked.masking import Masker, Masking
from mjx.data.masked.sentence_map import build_sentence_map
from mjx.data.masked.sentences import Sentences
from mjx.data.masked.spans import MaskedSpans
from mjx.data.masked.tokens import MaskedTokens

SENTENCES = 10_000_000
VOCABULARY = 30_522
ROWS = 1024


def report(what: str, start: float, processor: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    wall, processor = time.perf_counter() - start, time.process_time() - processor
    print(f"{what:55s} {wall:6.2f} s, {processor:5.2f} s of CPU   peak so far {peak:5.2f} GiB", flush=True)


def maps() -> None:
    random = np.random.RandomState(0)
    lengths = random.randint(1, 40, SENTENCES).astype(np.int32)
    print(f"{len(lengths):,} sentences, {lengths.sum(dtype=np.int64):,} tokens")
    for sentences, least, epochs in ((200, 2, 1), (20, 2, 1), (20, 2, 4), (2, 1, 1), (1, 1, 1)):
        documents = np.arange(SENTENCES)
        if sentences > 1:
            documents = np.unique(np.append(0, random.randint(0, SENTENCES, SENTENCES // sentences)))
        documents = np.append(documents, SENTENCES).astype(np.int64)
        choices = {"length": 509, "short_probability": 0.1, "least_sentences": least, "seed": 1234}
        split = range(len(documents) - 1)
        wanted = None
        if epochs > 1:
            once = build_sentence_map(lengths, documents, split, num_samples=None, **choices)
            wanted = (epochs - 1) * len(once) + len(once) // 2
        start, processor = time.perf_counter(), time.process_time()
        samples = build_sentence_map(lengths, documents, split, num_samples=wanted, **choices)
        report(
            f"{len(documents) - 1:,} documents, {epochs} epochs: {len(samples):,} samples", start, processor
        )


def rows() -> None:
    random = np.random.RandomState(0)
    lengths = random.randint(5, 40, 100_000)
    with tempfile.TemporaryDirectory() as folder:
        with IndexedDatasetWriter(f"{folder}/text", np.uint16) as writer:
            tokens = random.randint(200, 30_000, lengths.sum())
            writer.add_documents(tokens, lengths, np.full(5000, 20))
        source = IndexedDataset(f"{folder}/text")
        samples = build_sentence_map(
            source.sequence_lengths,
            source.document_indices,
            range(5000),
            length=509,
            num_samples=2 * ROWS,
            short_probability=0.1,
            least_sentences=2,
            seed=1234,
        )
        sentences = Sentences(source, samples, vocab_size=VOCABULARY)
        continues = np.arange(VOCABULARY) % 4 == 0
        common = {"probability": 0.15, "whole_words": True, "longer_ngrams": False}
        datasets = {
            "tokens hidden": MaskedTokens(
                sentences,
                Masker(Masking(max_ngram=3, geometric=False, **common), continues, (101, 102)),
                sequence_length=512,
                pairs=True,
                cls_id=101,
                sep_id=102,
                mask_id=103,
                pad_id=0,
                replacements=np.arange(VOCABULARY),
                seed=1234,
            ),
            "spans hidden": MaskedSpans(
                sentences,
                Masker(Masking(max_ngram=10, geometric=True, **common), continues, (101, 102)),
                sequence_length=512,
                decoder_length=128,
                start_id=1,
                eos_id=2,
                sentinel_ids=tuple(range(30_000, 30_100)),
                pad_id=0,
                seed=1234,
            ),
        }
        for name, dataset in datasets.items():
            start = time.process_time()
            for first in range(0, ROWS, 64):
                dataset.read(np.arange(first, first + 64))
            each = (time.process_time() - start) / ROWS
            print(f"{name}: {1e6 * each:.0f} us of CPU a row, {1 / each:,.0f} rows a second", flush=True)


if __name__ == "__main__":
    maps()
    rows()
