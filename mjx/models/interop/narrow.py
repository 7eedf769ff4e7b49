"""Numbers in another type: what would become infinite there, and what is not finite already."""

import logging
import math
from collections.abc import Sequence

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from mjx.errors import InputError


def in_dtype(
    array: Shaped[np.ndarray, "*shape"], dtype: np.dtype, name: str, *, clip: bool = False
) -> Shaped[np.ndarray, "*shape"]:
    """The array in `dtype`, a floating type; itself where it has that type.

    `clip`: what is beyond its largest number becomes that number. Infinities and NaNs stay, where the type
    has them.

    Raises:
        InputError: without `clip`, there is a number beyond it.
    """
    if array.dtype == dtype or not array.size:
        return array.astype(dtype, copy=False)
    largest = float(ml_dtypes.finfo(dtype).max)
    least, most = _ends(array)
    if -largest <= least and most <= largest:  # not with NaNs
        return array.astype(dtype)
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    lost = np.isfinite(array) & ~np.isfinite(cast)
    if not lost.any():
        return cast
    beyond = array[lost].astype(np.float64)
    if not clip:
        raise InputError(
            f"{name} has {beyond.size} of {array.size} numbers beyond {dtype.name}, whose largest is "
            f"{largest:g}; they go up to {np.abs(beyond).max():g}. Choose a wider dtype (bfloat16 is as wide "
            "as float32), or clip them (--clip)."
        )
    cast[lost] = np.copysign(largest, beyond).astype(dtype)
    return cast


def is_finite(array: Shaped[np.ndarray, "*shape"]) -> bool:
    """Whether all of it is."""
    return not array.size or all(map(math.isfinite, _ends(array)))


def _ends(array: Shaped[np.ndarray, "*shape"]) -> tuple[float, float]:
    """The least and the largest number; NaNs if there is one. Found without an array of flags."""
    with np.errstate(invalid="ignore"):
        return float(array.min()), float(array.max())


def warn_of_non_finite(what: str, names: Sequence[str]) -> None:
    """By name, where there are any: of `what`, tensors that hold NaNs or infinities."""
    if names:
        logging.getLogger("mjx").warning(
            "%d of %s tensors hold numbers that are not finite (NaN or infinity): %s%s",
            *(len(names), what, ", ".join(names[:5]), " …" if len(names) > 5 else ""),
        )
