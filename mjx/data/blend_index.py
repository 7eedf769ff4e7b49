"""Which dataset of a blend each sample comes from: Megatron's greedy order, computed in parallel.

Sample i goes to the dataset that lags most, argmax_d(weight_d · max(i, 1) - taken_d), the first on a tie. The
rule looks sequential, but its state is only (i, taken), and it forgets: started from nearly right counts it
soon falls into the same steps. So the samples are cut into lanes that run side by side from guessed counts,
and the guesses are then proven: a lane is right when it starts from the counts with which the lane before it
ends. Lanes that are not run again from there. The result is exact whatever the guesses were.
"""

import os

import numpy as np
from jaxtyping import Float64, Int16, Int64

from mjx.data.cache import cached_arrays
from mjx.errors import InputError

_LANES = 8192
_WARM_UP = 16
"""Steps, per dataset, for which a guessed lane runs before its samples count."""


def normalize(weights: list[float]) -> Float64[np.ndarray, "datasets"]:
    """Weights that sum to one, rounded as Megatron rounds them (it normalises twice)."""
    shares = np.array(weights, np.float64)
    for _ in range(2):
        shares = shares / shares.sum()
    return shares


def blend_index(
    weights: Float64[np.ndarray, "datasets"], size: int
) -> tuple[Int16[np.ndarray, "size"], Int64[np.ndarray, "size"]]:
    """The dataset of each sample, and which of that dataset's samples it is.

    Args:
        weights: Positive, summing to one (see `normalize`).
        size: Samples of the blend.
    """
    if len(weights) >= np.iinfo(np.int16).max:
        raise InputError(f"A blend has at most {np.iinfo(np.int16).max - 1} sources, not {len(weights)}.")
    lanes = max(1, min(_LANES, size // (8 * _WARM_UP * len(weights))))
    steps = -(-size // lanes)
    begins = np.arange(lanes, dtype=np.int64) * steps
    starts, _ = _run(
        weights, begins - min(_WARM_UP * len(weights), steps), None, min(_WARM_UP * len(weights), steps)
    )
    starts[:, 0] = 0
    picks = np.empty((steps, lanes), np.int16)
    ends, picks[:] = _run(weights, begins, starts, steps)
    while True:
        wrong = 1 + np.flatnonzero((starts[:, 1:] != ends[:, :-1]).any(axis=0))
        if not len(wrong):
            break
        # The first wrong lane now starts right, so this ends, at the latest after as many rounds as lanes.
        starts[:, wrong] = ends[:, wrong - 1]
        ends[:, wrong], picks[:, wrong] = _run(weights, begins[wrong], starts[:, wrong], steps)
    dataset_index = np.ascontiguousarray(picks.T).reshape(-1)[:size]

    sample_index = np.empty(size, np.int64)
    for dataset in range(len(weights)):
        where = np.flatnonzero(dataset_index == dataset)
        sample_index[where] = np.arange(len(where))
    return dataset_index, sample_index


def load_blend_index(
    weights: Float64[np.ndarray, "datasets"],
    size: int,
    cache_dir: str | os.PathLike[str],
    timeout: float = 3600.0,
) -> tuple[Int16[np.ndarray, "size"], Int64[np.ndarray, "size"]]:
    """`blend_index` through a cache: built by the first process that asks, mapped into memory by all."""

    def build() -> dict[str, np.ndarray]:
        dataset_index, sample_index = blend_index(weights, size)
        return {"dataset_index": dataset_index, "sample_index": sample_index}

    key = {"weights": [float(weight).hex() for weight in weights], "size": size}
    names = ("dataset_index", "sample_index")
    arrays = cached_arrays(cache_dir, "blend", key, names, build, timeout)
    return arrays["dataset_index"], arrays["sample_index"]


def _run(
    weights: Float64[np.ndarray, "datasets"],
    begins: Int64[np.ndarray, "lanes"],
    taken: Int64[np.ndarray, "datasets lanes"] | None,
    steps: int,
) -> tuple[Int64[np.ndarray, "datasets lanes"], Int16[np.ndarray, "steps lanes"]]:
    """Takes `steps` samples in every lane, lane l from sample `begins[l]` on; no `taken`: guessed counts."""
    lanes = np.arange(len(begins))
    begins = np.maximum(begins, 0)
    if taken is None:
        taken = np.floor(weights[:, None] * begins).astype(np.int64)
        for _ in range(len(weights)):
            missing = taken.sum(axis=0) < begins
            if not missing.any():
                break
            taken[_most_behind(weights, np.maximum(begins, 1), taken)[missing], lanes[missing]] += 1
    counts = taken.astype(np.float64)
    picks = np.empty((steps, len(begins)), np.int16)
    for step in range(steps):
        pick = _most_behind(weights, np.maximum(begins + step, 1), counts)
        counts[pick, lanes] += 1.0
        picks[step] = pick
    return counts.astype(np.int64), picks


def _most_behind(weights, samples, taken) -> Int64[np.ndarray, "lanes"]:
    samples = samples.astype(np.float64)
    best = weights[0] * samples - taken[0]
    pick = np.zeros(len(samples), np.int64)
    for dataset in range(1, len(weights)):
        behind = weights[dataset] * samples - taken[dataset]
        more = behind > best
        np.copyto(best, behind, where=more)
        pick[more] = dataset
    return pick
