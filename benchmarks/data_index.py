"""Time and memory of the sample index: 10 million documents, 10 billion tokens, and a blend of 20 million
samples.

Run: python benchmarks/data_index.py
"""

import resource
import time

import numpy as np

from mjx.data.blend_index import blend_index, normalize
from mjx.data.gpt.index import build_gpt_index
from mjx.data.gpt.packing import build_packed_index


def report(what: str, start: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:58s} {time.perf_counter() - start:6.2f} s   peak so far {peak:5.2f} GiB", flush=True)


def main() -> None:
    lengths = np.random.default_rng(0).integers(1, 2000, 10_000_000).astype(np.int32)
    print(f"{len(lengths):,} documents, {lengths.sum(dtype=np.int64):,} tokens")
    for sequence_length in (1024, 4096):
        start = time.perf_counter()
        index = build_gpt_index(
            lengths, range(len(lengths)), sequence_length=sequence_length, num_samples=None, seed=1234
        )
        report(f"index, sequence length {sequence_length}: {index.num_samples:,} samples", start)
    for sources in (2, 10):
        start = time.perf_counter()
        blend_index(normalize(list(np.random.RandomState(sources).rand(sources))), 20_000_000)
        report(f"blend of {sources} sources: 20,000,000 samples", start)
    start = time.perf_counter()
    packed = build_packed_index(
        lengths, range(len(lengths)), sequence_length=4096, num_samples=None, seed=1234
    )
    rows = len(packed.row_start) - 1
    padding = 1 - packed.piece_length.sum(dtype=np.int64) / (rows * 4096)
    report(f"packing into {rows:,} rows of 4096, {padding:.3%} padding", start)


if __name__ == "__main__":
    main()
