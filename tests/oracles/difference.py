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
    rounding: float = 3.0
    """How often as far as float32 itself may move a number: what is beyond the limits above is compared with
    what becomes of ours when every weight moves by half a unit in its last place. 0: not so."""


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


@dataclasses.dataclass(frozen=True)
class Scale:
    """What an array's difference is held against."""

    limit: float
    scale: float
    noise: float = 0.0


def output_scale(theirs: np.ndarray, limits: Limits, where: np.ndarray | None) -> Scale:
    """`where`: which places count, those of no padding."""
    numbers = theirs if where is None else theirs[where]
    return Scale(limits.outputs, max(1.0, float(numbers.std()) if numbers.size else 0.0))


def loss_scale(theirs: np.ndarray, limits: Limits) -> Scale:
    return Scale(limits.loss, _largest(theirs))


def gradient_scale(theirs: np.ndarray, limits: Limits) -> Scale:
    return Scale(limits.gradients, _largest(theirs), limits.noise)


EXACT = Scale(0.0, 1.0)


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0.0))


def difference(
    name: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    against: Scale,
    where: np.ndarray | None = None,
    moved: float = 0.0,
) -> Difference:
    """Of one array: within the limit, or no further than rounding has `moved` it, where that is known."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    limit = against.limit
    if ours.shape != theirs.shape:
        sentence = f"{name} has the shape {list(ours.shape)}, and theirs {list(theirs.shape)}"
        return Difference(name, "", math.nan, math.nan, limit, False, sentence)
    apart = np.abs(ours - theirs)
    if where is not None:
        apart = np.where(where, apart, 0.0)
    if not apart.size:
        return Difference(name, "", 0.0, 0.0, limit, True, f"{name} is empty")
    place = np.unravel_index(np.argmax(apart), apart.shape)  # NaN counts as the largest
    absolute = float(apart[place])
    relative = absolute / against.scale if against.scale else (0.0 if absolute == 0 else math.inf)
    at = f"[{', '.join(map(str, place))}]" if place else ""
    sentence = (
        f"{name}{at} is {ours[place]:.8g} and theirs {theirs[place]:.8g}: "
        f"apart by {absolute:.2e}, {relative:.2e} of {against.scale:.3g} (limit {limit:.0e})"
    )
    if moved:
        sentence += f"; rounding moves it by {moved:.2e}"
    within = absolute <= against.noise or relative <= limit or absolute <= moved
    relative = 0.0 if absolute <= against.noise else relative
    return Difference(name, at, absolute, relative, limit, within, sentence)
