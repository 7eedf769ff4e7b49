"""Rotary position embedding (Su et al. 2021) and its context extensions."""

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from mjx.bounds import MOST, check_scale
from mjx.errors import InputError
from mjx.models.common.context import Context


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoPEScaling:
    """How a model trained on short contexts is stretched to long ones."""

    kind: Literal["linear", "llama3", "yarn", "longrope"]
    """linear: positions divided by `factor` (Chen et al. 2023). llama3: low frequencies divided, high ones
    kept, a smooth blend between. yarn: the same by a ramp over rotations (Peng et al. 2023, section 3.2).
    longrope: a divisor for every pair of features, other ones in long rows (Ding et al. 2024)."""
    factor: float
    """How many times longer the context becomes."""
    original_positions: int = 8192
    """The context length of pre-training (llama3, yarn, longrope)."""
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
    """Factor on cosines and sines. Default of yarn: 0.1 ln(factor) + 1 (Peng et al. 2023, equation 22), of
    longrope: √(1 + ln(factor) / ln(original_positions)); 1 where factor is at most 1."""
    short_factors: tuple[float, ...] | None = None
    """longrope: the divisor of each pair's frequency, in rows that end within original_positions."""
    long_factors: tuple[float, ...] | None = None
    """longrope: the same for rows that have a position at or beyond original_positions."""

    def __post_init__(self):
        for name in ("factor", "low_frequency_factor", "high_frequency_factor", "beta_fast", "beta_slow"):
            check_scale(f"rope.scaling.{name}", getattr(self, name))
        if self.original_positions < 1:
            raise InputError(f"rope.scaling.original_positions = {self.original_positions} must be positive")
        if self.kind == "llama3" and not self.low_frequency_factor < self.high_frequency_factor:
            raise InputError(
                f"rope.scaling.low_frequency_factor = {self.low_frequency_factor} must be below "
                f"high_frequency_factor = {self.high_frequency_factor}"
            )
        if self.kind == "yarn" and not self.beta_slow < self.beta_fast:
            raise InputError(
                f"rope.scaling.beta_slow = {self.beta_slow} must be above 0 and below "
                f"beta_fast = {self.beta_fast}"
            )
        if self.concentration is not None:
            if self.kind not in ("yarn", "longrope"):
                raise InputError(
                    f"rope.scaling.concentration = {self.concentration} is for yarn and longrope; "
                    f"with kind = {self.kind} it must be null"
                )
            check_scale("rope.scaling.concentration", self.concentration)
        for name in ("short_factors", "long_factors"):
            divisors = getattr(self, name)
            if (divisors is None) == (self.kind == "longrope"):
                wants = "a divisor for every pair of features" if divisors is None else "longrope"
                given = "null" if divisors is None else "given"
                raise InputError(f"rope.scaling.{name} is {given}, but kind = {self.kind}: it needs {wants}")
            for number, divisor in enumerate(divisors or ()):
                check_scale(f"rope.scaling.{name}.{number}", divisor)
        if self.kind == "longrope" and self.original_positions == 1:
            raise InputError("rope.scaling.original_positions = 1 must be above 1 for longrope")

    @property
    def tables_factor(self) -> float:
        """What cosines and sines are multiplied by."""
        if self.concentration is not None:
            return self.concentration
        if self.kind not in ("yarn", "longrope") or self.factor <= 1:
            return 1.0
        growth = math.log(self.factor)
        if self.kind == "yarn":
            return 0.1 * growth + 1
        return math.sqrt(1 + growth / math.log(self.original_positions))


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
    sections: tuple[int, ...] | None = None
    """Positions have several axes, and each turns so many pairs of features, one behind the other (M-RoPE,
    Wang et al. 2024, section 2.1: time, height, width); null: they have one, which turns all."""
    section_frequencies: Literal["shared", "own"] = "shared"
    """shared: the frequencies go on from section to section. own: each section has all of them, from the
    fastest to the slowest, as rows and columns of pictures do."""

    def __post_init__(self):
        if not 0 < self.percent <= 1:
            raise InputError(f"rope.percent = {self.percent} must be above 0 and at most 1")
        if not 1 < self.base <= MOST:
            raise InputError(f"rope.base = {self.base} must be above 1, and at most {MOST:g}")
        sections = self.sections
        if sections is not None and (not sections or min(sections) < 1):
            raise InputError(f"rope.sections = {list(sections)} must be positive, or null for one axis")
        if sections is not None and self.varies:
            raise InputError(
                f"rope.sections = {list(sections)} are not for longrope, whose rows are turned anew as they "
                "grow; leave one of the two out"
            )
        if self.section_frequencies == "own":
            if sections is None or len(set(sections)) > 1:
                raise InputError(
                    "rope.section_frequencies = own needs rope.sections of one size, which have the same "
                    f"frequencies; they are {shown_sections(sections)}"
                )
            if self.scaling is not None:
                raise InputError(
                    "rope.section_frequencies = own has no rope.scaling; leave one of the two out"
                )

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

    def check(self, head_dim: int) -> None:
        """Raise `InputError` if heads of this size cannot be rotated so."""
        pairs = self.rotated(head_dim) // 2
        if self.sections is not None and sum(self.sections) != pairs:
            raise InputError(
                f"rope.sections = {list(self.sections)} are of {sum(self.sections)} pairs of features, but "
                f"rope.percent = {self.percent} of head_dim = {head_dim} makes {pairs}"
            )
        for name in ("short_factors", "long_factors"):
            divisors = getattr(self.scaling, name, None)
            if divisors is not None and len(divisors) != pairs:
                raise InputError(
                    f"rope.scaling.{name} has {len(divisors)} divisors, but rope.percent = {self.percent} of "
                    f"head_dim = {head_dim} makes {pairs} pairs of features"
                )

    @property
    def varies(self) -> bool:
        """Whether the frequencies depend on how long the row is."""
        return self.scaling is not None and self.scaling.kind == "longrope"


def shown_sections(sections: tuple[int, ...] | None) -> str:
    """As a recipe says them."""
    return "null" if sections is None else str(list(sections))


@dataclasses.dataclass(frozen=True)
class Rotary:
    """The `rotary_tables` of all layers that rotate alike."""

    rope: RoPEConfig
    head_dim: int

    @property
    def name(self) -> str:
        return "rotary"

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> None:
        return None

    def make(self, module: None, context: Context) -> tuple[Array, Array]:
        if context.positions is None:
            raise ValueError("rotation needs the positions of the tokens (Context.positions)")
        last = None if context.decoding is None else context.decoding.last
        return rotary_tables(self.rope, self.head_dim, context.positions, last)


def inverse_frequencies(config: RoPEConfig, head_dim: int, *, long: bool = False) -> np.ndarray:
    """Radians per position of each feature pair; `long`: in rows beyond the original positions."""
    features = config.rotated(head_dim)
    if config.section_frequencies == "own" and config.sections is not None:
        each = config.base ** (-np.arange(config.sections[0], dtype=np.float64) / config.sections[0])
        return np.tile(each, len(config.sections))
    frequencies = config.base ** (-np.arange(0, features, 2, dtype=np.float64) / features)
    scaling = config.scaling
    if scaling is None:
        return frequencies
    if scaling.kind == "longrope":
        return frequencies / np.array(scaling.long_factors if long else scaling.short_factors, np.float64)
    stretched = frequencies / scaling.factor
    if scaling.kind == "linear":
        return stretched
    if scaling.kind == "llama3":
        rotations = scaling.original_positions * frequencies / (2 * np.pi)
        span = scaling.high_frequency_factor - scaling.low_frequency_factor
        kept = np.clip((rotations - scaling.low_frequency_factor) / span, 0, 1)
        return kept * frequencies + (1 - kept) * stretched

    def dimension(rotations: float) -> float:
        """The (fractional) pair that turns `rotations` times over the original context."""
        turns = scaling.original_positions / (rotations * 2 * math.pi)
        return features * math.log(turns) / (2 * math.log(config.base))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.round_ramp:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, features - 1)
    ramp = np.clip((np.arange(features // 2) - low) / ((high - low) or 1e-3), 0, 1)
    return (1 - ramp) * frequencies + ramp * stretched


def rotary_tables(
    config: RoPEConfig,
    head_dim: int,
    positions: Int[Array, "batch sequence *axes"],
    last: Int[Array, " batch"] | None = None,
) -> tuple[Float[Array, "batch sequence pairs"], Float[Array, "batch sequence pairs"]]:
    """Cosine and sine of every token's angles, in float32.

    `last` is the largest position of each whole row, where `positions` are not all of it. Where positions
    have no axes, those of `RoPEConfig.sections` are all the same.
    """
    frequencies = inverse_frequencies(config, head_dim).astype(np.float32)
    scaling = config.scaling
    if scaling is not None and config.varies:
        long = jnp.asarray(inverse_frequencies(config, head_dim, long=True), jnp.float32)
        beyond = (
            jnp.max(positions, axis=tuple(range(1, positions.ndim))) if last is None else last
        ) >= scaling.original_positions
        frequencies = jnp.where(beyond[:, None, None], long, frequencies)
    if positions.ndim == 2:
        angles = positions[..., None].astype(jnp.float32) * frequencies
    else:
        axes = np.repeat(np.arange(len(config.sections or ())), config.sections or ())
        angles = positions[..., axes].astype(jnp.float32) * frequencies
    factor = 1.0 if scaling is None else scaling.tables_factor
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


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
