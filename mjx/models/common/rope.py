"""Rotary position embedding (Su et al. 2021) and its context extensions."""

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoPEScaling:
    """How a model trained on short contexts is stretched to long ones."""

    kind: Literal["linear", "llama3", "yarn"]
    """linear: positions divided by `factor` (Chen et al. 2023). llama3: low frequencies divided, high ones
    kept, a smooth blend between. yarn: the same by a ramp over rotations (Peng et al. 2023, section 3.2)."""
    factor: float
    """How many times longer the context becomes."""
    original_positions: int = 8192
    """The context length of pre-training (llama3, yarn)."""
    low_frequency_factor: float = 1.0
    """llama3: wavelengths above original_positions / this are divided."""
    high_frequency_factor: float = 4.0
    """llama3: wavelengths below original_positions / this are kept."""
    beta_fast: float = 32.0
    """yarn: dimensions with more rotations than this over the original context are kept."""
    beta_slow: float = 1.0
    """yarn: dimensions with fewer rotations than this are divided."""
    round_ramp: bool = True
    """yarn: round the ends of the ramp to whole dimensions."""
    concentration: float | None = None
    """yarn: factor on cosines and sines; default 0.1 ln(factor) + 1 (Peng et al. 2023, equation 22)."""

    def __post_init__(self):
        if not self.factor > 0:
            raise InputError(f"rope.scaling.factor = {self.factor} must be positive")
        if self.original_positions < 1:
            raise InputError(f"rope.scaling.original_positions = {self.original_positions} must be positive")
        if self.kind == "llama3" and not self.low_frequency_factor < self.high_frequency_factor:
            raise InputError(
                f"rope.scaling.low_frequency_factor = {self.low_frequency_factor} must be below "
                f"high_frequency_factor = {self.high_frequency_factor}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoPEConfig:
    """Rotation of queries and keys by their positions."""

    base: float = 10_000.0
    """Longest wavelength / 2π."""
    percent: float = 1.0
    """Share of the head's features that is rotated; the rest passes through."""
    layout: Literal["halves", "interleaved"] = "halves"
    """Which features form a pair: i and i + d/2 (GPT-NeoX), or 2i and 2i + 1 (the paper)."""
    scaling: RoPEScaling | None = None
    """Stretch the frequencies to longer contexts than those of pre-training; null: do not."""

    def __post_init__(self):
        if not 0 < self.percent <= 1:
            raise InputError(f"rope.percent = {self.percent} must be above 0 and at most 1")
        if not self.base > 1:
            raise InputError(f"rope.base = {self.base} must be above 1")

    def rotated(self, head_dim: int) -> int:
        """How many features of a head are rotated.

        Raises:
            InputError: the number is odd or zero.
        """
        features = int(head_dim * self.percent)
        if features < 2 or features % 2:
            raise InputError(
                f"rope.percent = {self.percent} of head_dim = {head_dim} rotates {features} features; "
                "it must be an even number of at least 2"
            )
        return features


def inverse_frequencies(config: RoPEConfig, head_dim: int) -> tuple[np.ndarray, float]:
    """Radians per position of each feature pair, and the factor on cosine and sine."""
    features = config.rotated(head_dim)
    frequencies = config.base ** (-np.arange(0, features, 2, dtype=np.float64) / features)
    scaling = config.scaling
    if scaling is None:
        return frequencies, 1.0
    stretched = frequencies / scaling.factor
    if scaling.kind == "linear":
        return stretched, 1.0
    if scaling.kind == "llama3":
        rotations = scaling.original_positions * frequencies / (2 * np.pi)
        span = scaling.high_frequency_factor - scaling.low_frequency_factor
        kept = np.clip((rotations - scaling.low_frequency_factor) / span, 0, 1)
        return kept * frequencies + (1 - kept) * stretched, 1.0

    def dimension(rotations: float) -> float:
        """The (fractional) pair that turns `rotations` times over the original context."""
        turns = scaling.original_positions / (rotations * 2 * math.pi)
        return features * math.log(turns) / (2 * math.log(config.base))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.round_ramp:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, features - 1)
    ramp = np.clip((np.arange(features // 2) - low) / max(high - low, 1e-3), 0, 1)
    concentration = scaling.concentration
    if concentration is None:
        concentration = 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0
    return (1 - ramp) * frequencies + ramp * stretched, concentration


def rotary_tables(
    config: RoPEConfig, head_dim: int, positions: Int[Array, "batch sequence"]
) -> tuple[Float[Array, "batch sequence pairs"], Float[Array, "batch sequence pairs"]]:
    """Cosine and sine of every token's angles, in float32."""
    frequencies, concentration = inverse_frequencies(config, head_dim)
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(frequencies, jnp.float32)
    return jnp.cos(angles) * concentration, jnp.sin(angles) * concentration


def rotate(
    x: Float[Array, "batch sequence heads head_dim"],
    cos: Float[Array, "batch sequence pairs"],
    sin: Float[Array, "batch sequence pairs"],
    layout: Literal["halves", "interleaved"],
) -> Float[Array, "batch sequence heads head_dim"]:
    """Rotate the first 2 × pairs features of every head; computed in float32."""
    features = 2 * cos.shape[-1]
    turned, passed = x[..., :features].astype(jnp.float32), x[..., features:]
    cos, sin = cos[..., None, :], sin[..., None, :]
    if layout == "halves":
        a, b = jnp.split(turned, 2, axis=-1)
        turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    else:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(turned.shape)
    turned = turned.astype(x.dtype)
    return turned if passed.shape[-1] == 0 else jnp.concatenate([turned, passed], axis=-1)
