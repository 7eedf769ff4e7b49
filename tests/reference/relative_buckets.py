"""The buckets of relative positions, one distance at a time (Raffel et al. 2020, section 2.1)."""

import math

import numpy as np


def bucket(relative: int, buckets: int, max_distance: int, *, two_sided: bool) -> int:
    """Of a key that stands `relative` behind the query; logarithms in float32, as T5's own code has them."""
    first = 0
    if two_sided:
        buckets //= 2
        first = buckets if relative > 0 else 0
        distance = abs(relative)
    else:
        distance = max(-relative, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    grown = np.log(np.float32(distance / exact)) / np.float32(math.log(max_distance / exact))
    return first + min(exact + int(np.float32(grown) * np.float32(buckets - exact)), buckets - 1)
