"""Rotary positions (Su et al. 2021): each pair of features is a complex number that turns with its token."""

import math

import numpy as np


def frequency(rope, features: int, pair: int, *, long: bool) -> float:
    """Radians per position of one of the `features` / 2 pairs."""
    plain = rope.base ** (-2 * pair / features)
    scaling = rope.scaling
    if scaling is None:
        return plain
    if scaling.kind == "linear":  # Chen et al. 2023
        return plain / scaling.factor
    if scaling.kind == "longrope":  # Ding et al. 2024
        return plain / (scaling.long_factors if long else scaling.short_factors)[pair]
    if scaling.kind == "llama3":
        wavelength = 2 * math.pi / plain
        if wavelength < scaling.original_positions / scaling.high_frequency_factor:
            return plain
        if wavelength > scaling.original_positions / scaling.low_frequency_factor:
            return plain / scaling.factor
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        smooth = (scaling.original_positions / wavelength - low) / (high - low)
        return (1 - smooth) * plain / scaling.factor + smooth * plain
    assert scaling.kind == "yarn"  # Peng et al. 2023, equations 17 to 19, with transformers' ends of the ramp
    ends = []
    for rotations in (scaling.beta_fast, scaling.beta_slow):
        wavelength = scaling.original_positions / rotations
        ends.append(features / 2 * math.log(wavelength / (2 * math.pi)) / math.log(rope.base))
    if scaling.round_ramp:
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    first, last = max(ends[0], 0), min(ends[1], features - 1)
    stretched = min(max((pair - first) / ((last - first) or 1e-3), 0.0), 1.0)
    return stretched * plain / scaling.factor + (1 - stretched) * plain


def magnitude(scaling) -> float:
    """What the rotated features are longer by."""
    if scaling is None or scaling.kind not in ("yarn", "longrope"):
        return 1.0
    if scaling.concentration is not None:
        return scaling.concentration
    if scaling.factor <= 1:
        return 1.0
    if scaling.kind == "yarn":
        return 0.1 * math.log(scaling.factor) + 1
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_positions))


def turns(rope, head_dim: int, positions: np.ndarray) -> np.ndarray:
    """The complex number (batch, sequence, pairs) that each pair of each token is multiplied by."""
    features = int(head_dim * rope.percent)
    rows = []
    for row in np.asarray(positions):
        long = rope.scaling is not None and row.max() >= rope.scaling.original_positions
        radians = np.array([frequency(rope, features, pair, long=long) for pair in range(features // 2)])
        rows.append(magnitude(rope.scaling) * np.exp(1j * row[:, None] * radians))
    return np.stack(rows)


def rotate(rope, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """`x` is (batch, sequence, heads, head_dim), `positions` are (batch or 1, sequence)."""
    factors = turns(rope, x.shape[-1], positions)[:, :, None]
    pairs = factors.shape[-1]
    y = x.astype(np.float64)
    real, imaginary = (
        (np.s_[..., :pairs], np.s_[..., pairs : 2 * pairs])
        if rope.layout == "halves"
        else (np.s_[..., 0 : 2 * pairs : 2], np.s_[..., 1 : 2 * pairs : 2])
    )
    turned = (y[real] + 1j * y[imaginary]) * factors
    y[real], y[imaginary] = turned.real, turned.imag
    return y
