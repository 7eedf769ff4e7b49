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


def retrieval_scores(
    ones: Float[np.ndarray, "rows latent"],
    others: Float[np.ndarray, "rows latent"],
    names: tuple[str, str],
    most: tuple[int, ...] = (1, 5),
) -> dict[str, float]:
    """Of vectors of length one that belong together row by row, how often the own one of the others is among
    the nearest `most`, and the other way round: `image_to_text_recall_at_5`. Those as near as the own one are
    half in front of it, so that copies of one vector find nothing."""
    scores: dict[str, float] = {}
    for (one, asked), (other, found) in (
        ((names[0], ones), (names[1], others)),
        ((names[1], others), (names[0], ones)),
    ):
        places = _places(asked, found)
        scores |= {f"{one}_to_{other}_recall_at_{k}": float((places < k).mean()) for k in most}
    return scores


def _places(
    asked: Float[np.ndarray, "rows latent"], found: Float[np.ndarray, "rows latent"], block: int = 1024
) -> Float[np.ndarray, " rows"]:
    """How many are nearer to each row than its own, some rows at a time."""
    places = []
    for start in range(0, len(asked), block):
        near = asked[start : start + block] @ found.T
        own = near[np.arange(len(near)), start + np.arange(len(near))][:, None]
        places.append((near > own).sum(axis=1) + ((near == own).sum(axis=1) - 1) / 2)
    return np.concatenate(places)
