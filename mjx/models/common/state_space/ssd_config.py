"""What a sub-layer of state-space duality is made of."""

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import DTypeLike

from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.backends import Implementation
from mjx.models.common.mlp import Activation
from mjx.models.common.pattern import CacheSizes, Lengths, MixerConfig, StepOnMesh, Work
from mjx.models.common.share import Share
from mjx.models.common.state_space.cache import StateCache
from mjx.models.common.state_space.initial import TimeStepConfig
from mjx.models.common.state_space.work import left_by_parts
from mjx.words import divisors, one_of

if TYPE_CHECKING:
    from mjx.models.common.state_space.ssd import SSD


class Sizes(NamedTuple):
    """Of a resolved config."""

    heads: int
    head_dim: int
    groups: int
    state: int

    @property
    def features(self) -> int:
        """Of all heads."""
        return self.heads * self.head_dim

    @property
    def convolved(self) -> int:
        """Channels of the convolution."""
        return self.features + 2 * self.groups * self.state

    @property
    def projected(self) -> int:
        """What the maps into the sub-layer make of a token."""
        return self.features + self.convolved + self.heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class SSDConfig(MixerConfig):
    """A selective state space with one decay per head (Dao and Gu 2024, section 7), convolution and gate."""

    name: ClassVar[str] = "ssd"
    training_choices: ClassVar[tuple[str, ...]] = (
        *("dt.min", "dt.max", "dt.floor", "decay_range", "chunk_size", "implementation"),
    )
    """As those of a model's config: what a run may choose freely for given weights."""

    state: int = 128
    """Numbers that the recurrence keeps for each feature of a head."""
    head_dim: int = 64
    """Features of a head."""
    groups: int = 8
    """Heads of one group read and write by the same B and C."""
    heads: int | None = None
    """Null: as many as make expand × the width of the model."""
    expand: float = 2
    """Features of all heads, as a multiple of the width of the model, where `heads` does not say."""
    conv_width: int = 4
    """Tokens that the convolution sees, the token itself included."""
    conv_bias: bool = True
    """Add a bias to the convolution."""
    bias: bool = False
    """Add biases to the projections into the sub-layer and out of it."""
    output_bias: bool | None = None
    """Add a bias to the projection out of it; null: as bias."""
    scales: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    """Factors on gate, value, B, C and steps, behind their projections (μP)."""
    dt: TimeStepConfig = TimeStepConfig()
    """Steps of the recurrence."""
    decay_range: tuple[float, float] = (1.0, 16.0)
    """Decay rates -A begin uniform between these."""
    skip: Literal["head", "feature"] = "head"
    """Whether D, how much of a token goes past the recurrence, is a number of each head or feature."""
    norm: Literal["behind gate", "before gate", "none"] = "behind gate"
    """An RMSNorm of what the recurrence makes: of it times silu(gate), or of it alone."""
    norm_groups: int | None = None
    """Features are normalised in so many groups; null: as many as `groups`."""
    norm_epsilon: float = 1e-5
    """Added to the mean square."""
    activation: Activation = "silu"
    """Behind the convolution."""
    chunk_size: int = 128
    """Tokens that are computed by matrix products at once: of speed and memory, not of the result."""
    implementation: Implementation = "auto"
    """Which implementation computes it (`mjx backends`)."""

    def __post_init__(self):
        for name in ("state", "head_dim", "groups", "conv_width", "chunk_size"):
            if getattr(self, name) < 1:
                raise InputError(f"ssd.{name} = {getattr(self, name)} must be positive")
        for name in ("heads", "norm_groups"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"ssd.{name} = {value} must be positive, or null for the default")
        for name in ("expand", "norm_epsilon"):
            check_scale(f"ssd.{name}", getattr(self, name))
        for number, factor in enumerate(self.scales):
            check_scale(f"ssd.scales.{number}", factor)
        low, high = self.decay_range
        if not 0 < low <= high or math.isinf(high):
            raise InputError(
                f"ssd.decay_range = {[low, high]} must be two positive numbers, the smaller first"
            )
        if self.heads is not None:
            self._check_groups(self.heads)

    def resolve(self, hidden_size: int) -> "SSDConfig":
        """With every default that depends on the model's width filled in."""
        heads = self.heads
        if heads is None:
            features = self.expand * hidden_size
            if features % self.head_dim:
                raise InputError(
                    f"ssd.head_dim = {self.head_dim} does not divide ssd.expand × hidden_size = "
                    f"{features:g}; choose a divisor, or say ssd.heads"
                )
            heads = int(features) // self.head_dim
        groups = self.norm_groups or self.groups
        output_bias = self.bias if self.output_bias is None else self.output_bias
        self._check_groups(heads)
        return dataclasses.replace(self, heads=heads, norm_groups=groups, output_bias=output_bias)

    def _check_groups(self, heads: int) -> None:
        if heads % self.groups:
            raise InputError(
                f"ssd.groups = {self.groups} does not divide ssd.heads = {heads} (choose "
                f"{one_of(divisors(heads))})"
            )
        if self.norm_groups is not None and heads * self.head_dim % self.norm_groups:
            raise InputError(
                f"ssd.norm_groups = {self.norm_groups} does not divide the {heads * self.head_dim} features "
                "of all heads"
            )

    @property
    def sizes(self) -> Sizes:
        """Of a resolved config."""
        if self.heads is None:
            raise InputError("ssd.heads is not known yet: call resolve(hidden_size) first")
        return Sizes(self.heads, self.head_dim, self.groups, self.state)

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> "SSD":
        from mjx.models.common.state_space.ssd import SSD

        return SSD(self, embed, std=std, output_std=output_std, rngs=rngs)

    def flops_per_token(self, embed: int, lengths: Lengths) -> float:
        """The projections, and what a token writes to the states and reads of them; not the products by
        which chunks go without a step for each token."""
        sizes = self.sizes
        return 2 * embed * (sizes.projected + sizes.features) + 4 * sizes.features * sizes.state

    def work(self, embed: int, step: StepOnMesh) -> Work:
        """What the convolution and the recurrence make besides what the projections read and write, and a
        float32 state of every head for each chunk."""
        sizes, of_device = self.sizes, Share(step)
        rows, sequence = step.rows / of_device.rows, step.sequence // of_device.tokens
        tokens = rows * sequence
        heads, groups = of_device.over("heads", sizes.heads), of_device.over("groups", sizes.groups)
        made = tokens * (sizes.features / heads + 2 * sizes.groups * sizes.state / groups)
        state = sizes.features * sizes.state / heads
        of_rows = rows * state * 4 / step.itemsize
        states = -(-sequence // self.chunk_size) * of_rows
        inside = self.chunk_size**2 * sizes.heads / heads * rows * 4 / step.itemsize
        convolved = (self.conv_width - 1) * made / tokens
        exchanges = left_by_parts(of_device, convolved, state + sizes.heads / heads)
        kept, between = made + states, 2 * made + states + 3 * inside
        if exchanges:  # inputs with those in front of them, two scans, what enters; and all parts' states
            kept += made + states + of_device.parts * of_rows
            between += 2 * of_device.parts * of_device.tokens * of_rows
        return Work(exchanges, kept, between)

    def init_cache(self, sizes: CacheSizes, dtype: DTypeLike) -> StateCache:
        heads, head_dim, groups, state = self.sizes
        past = (sizes.batch, self.conv_width - 1)
        return StateCache(
            {
                "value": jnp.zeros((*past, heads, head_dim), dtype),
                "B": jnp.zeros((*past, groups, state), dtype),
                "C": jnp.zeros((*past, groups, state), dtype),
            },
            jnp.zeros((sizes.batch, heads, head_dim, state), jnp.float32),
        )
