"""How far two arrays are apart, where, and whether that is too far."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Limits:
    """Float32 on both sides: what the order of additions may make, and a wrong formula does not."""

    outputs: float = 1e-5
    """Absolute; where the reference's numbers spread (standard deviation) over more than 1, of that."""
    loss: float = 1e-6
    """Relative."""
    gradients: float = 1e-4
    """Relative to the tensor's largest entry: single entries may cancel to zero."""
    noise: float = 1e-8
    """Absolute: what is left of a gradient that is zero by its formula."""


LIMITS = Limits()


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of one array, where it is largest."""

    name: str
    where: str
    """The place of the largest, as `[row, column]`."""
    absolute: float
    relative: float
    """What the limit is held against, per unit of the limit's scale."""
    limit: float
    within: bool
    sentence: str

    @property
    def of_limit(self) -> float:
        """1 is just within; what is not a number is infinitely far."""
        if self.relative == 0:
            return 0.0
        ratio = self.relative / self.limit if self.limit else math.inf
        return math.inf if math.isnan(ratio) else ratio


def output_difference(name: str, ours, theirs, limits: Limits, where: np.ndarray | None = None) -> Difference:
    """Of an output. `where`: which of its leading places count (those of no padding)."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    counted = None
    if where is not None and ours.shape == theirs.shape and theirs.shape[: where.ndim] == where.shape:
        counted = np.broadcast_to(
            where.reshape(where.shape + (1,) * (theirs.ndim - where.ndim)), theirs.shape
        )
    spread = theirs.std() if counted is None else theirs[counted].std() if counted.any() else 0.0
    return _difference(name, ours, theirs, limits.outputs, max(1.0, float(spread)), 0.0, counted)


def loss_difference(name: str, ours, theirs, limits: Limits) -> Difference:
    return _difference(name, ours, theirs, limits.loss, _largest(theirs), 0.0)


def gradient_difference(name: str, ours, theirs, limits: Limits) -> Difference:
    return _difference(name, ours, theirs, limits.gradients, _largest(theirs), limits.noise)


def exact_difference(name: str, ours, theirs) -> Difference:
    return _difference(name, ours, theirs, 0.0, 1.0, 0.0)


def _largest(array) -> float:
    return float(np.abs(array).max(initial=0.0))


def _difference(
    name: str, ours, theirs, limit: float, scale: float, noise: float, counted: np.ndarray | None = None
) -> Difference:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        sentence = f"{name} has the shape {list(ours.shape)}, and theirs {list(theirs.shape)}"
        return Difference(name, "", math.nan, math.nan, limit, False, sentence)
    apart = np.abs(ours - theirs)
    if counted is not None:
        apart = np.where(counted, apart, 0.0)
    if not apart.size:
        return Difference(name, "", 0.0, 0.0, limit, True, f"{name} is empty")
    place = np.unravel_index(np.argmax(apart), apart.shape)  # NaN counts as the largest
    absolute = float(apart[place])
    relative = absolute / scale if scale else (0.0 if absolute == 0 else math.inf)
    where = f"[{', '.join(map(str, place))}]" if place else ""
    sentence = (
        f"{name}{where} is {ours[place]:.8g} and theirs {theirs[place]:.8g}: "
        f"apart by {absolute:.2e}, {relative:.2e} of {scale:.3g} (limit {limit:.0e})"
    )
    within = absolute <= noise or relative <= limit
    relative = 0.0 if absolute <= noise else relative
    return Difference(name, where, absolute, relative, limit, within, sentence)
