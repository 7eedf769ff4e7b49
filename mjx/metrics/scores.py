"""How well classes, or numbers, were told: of all rows of a set together, in closed form."""

import numpy as np
from jaxtyping import Float, Int, Shaped


def classification_scores(
    found: Int[np.ndarray, " rows"], labels: Int[np.ndarray, " rows"], classes: int
) -> dict[str, float]:
    """`accuracy`; `macro_f1`, the mean of F1 over the classes that are a label or were found; of two classes
    `f1`, that of the second; `matthews`, the correlation of both (Gorodkin 2004), 0 where one is constant."""
    pairs = np.bincount(labels * classes + found, minlength=classes**2)
    confusion = pairs.reshape(classes, classes).astype(np.float64)
    right, true, told = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    rows, there = confusion.sum(), (true + told) > 0
    f1 = 2 * right / np.where(there, true + told, 1)
    spreads = (rows**2 - told @ told) * (rows**2 - true @ true)
    together = right.sum() * rows - told @ true
    return {
        "accuracy": float(right.sum() / rows),
        **({"f1": float(f1[1])} if classes == 2 else {}),
        "macro_f1": float(f1[there].mean()),
        "matthews": float(together / np.sqrt(spreads)) if spreads else 0.0,
    }


def regression_scores(
    found: Float[np.ndarray, " rows"], labels: Float[np.ndarray, " rows"]
) -> dict[str, float]:
    """The correlations of what was found with the labels: `pearson`, and `spearman`, that of their ranks; no
    number (NaN) where one is constant."""
    return {
        "pearson": _correlation(found, labels),
        "spearman": _correlation(ranks(found), ranks(labels)),
    }


def ranks(values: Shaped[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """From 1 on; equal values have the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _correlation(one: Shaped[np.ndarray, " rows"], other: Shaped[np.ndarray, " rows"]) -> float:
    one, other = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (one, other))
    spread = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / spread) if spread else float("nan")
