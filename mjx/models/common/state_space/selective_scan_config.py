"""What a selective-scan sub-layer is made of."""

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import DTypeLike

from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.backends import Implementation
from mjx.models.common.mlp import Activation
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import CacheSizes, Lengths, MixerConfig, StepOnMesh, Work
from mjx.models.common.share import Share
from mjx.models.common.state_space.cache import StateCache
from mjx.models.common.state_space.initial import TimeStepConfig
from mjx.models.common.state_space.work import left_by_parts

if TYPE_CHECKING:
    from mjx.models.common.state_space.selective_scan import SelectiveScan

_CHUNK = 32
"""Tokens behind which the scan's implementation for every device keeps a state."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectiveScanConfig(MixerConfig):
    """A selective state space with a decay for each channel and state (Gu and Dao 2023), its convolution and
    gate."""

    name: ClassVar[str] = "selective_scan"
    training_choices: ClassVar[tuple[str, ...]] = (
        *("dt.min", "dt.max", "dt.floor", "dt_scale", "dt_weights", "implementation"),
    )
    """As those of a model's config: what a run may choose freely for given weights."""

    state: int = 16
    """Numbers that the recurrence keeps for each channel."""
    inner: int | None = None
    """Channels; null: expand × the width of the model."""
    expand: float = 2
    """Channels as a multiple of the width of the model, where `inner` does not say."""
    dt_rank: int | None = None
    """Features that a token's steps are made of; null: a sixteenth of the width of the model, rounded up."""
    conv_width: int = 4
    """Tokens that the convolution sees, the token itself included."""
    conv_bias: bool = True
    """Add a bias to the convolution."""
    bias: bool = False
    """Add biases to the projections into the sub-layer and out of it."""
    dt: TimeStepConfig = TimeStepConfig()
    """Steps of the recurrence."""
    dt_scale: float = 1.0
    """The weights that make steps begin within ± this / √dt_rank."""
    dt_weights: Literal["random", "constant"] = "random"
    """Whether they begin anywhere within these bounds, or at the upper one."""
    inner_norm: NormConfig | None = None
    """Normalise what steps are made of, B, and C, each by itself (Jamba)."""
    inner_norm_gain: bool = True
    """Whether these norms have gains (Falcon-Mamba: none)."""
    activation: Activation = "silu"
    """Behind the convolution."""
    implementation: Implementation = "auto"
    """Which implementation computes it (`mjx backends`)."""

    def __post_init__(self):
        for name in ("state", "conv_width"):
            if getattr(self, name) < 1:
                raise InputError(f"selective_scan.{name} = {getattr(self, name)} must be positive")
        for name in ("inner", "dt_rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"selective_scan.{name} = {value} must be positive, or null for the default")
        for name in ("expand", "dt_scale"):
            check_scale(f"selective_scan.{name}", getattr(self, name))
        if self.inner_norm is None and not self.inner_norm_gain:
            raise InputError(
                "selective_scan.inner_norm_gain = false needs selective_scan.inner_norm, which is null"
            )
        if self.inner_norm is not None and self.inner_norm.kind != "rmsnorm":
            raise InputError(
                f"selective_scan.inner_norm.kind = {self.inner_norm.kind} is not known; choose rmsnorm"
            )

    def resolve(self, hidden_size: int) -> "SelectiveScanConfig":
        """With every default that depends on the model's width filled in."""
        inner = self.inner or int(self.expand * hidden_size)
        return dataclasses.replace(self, inner=inner, dt_rank=self.dt_rank or -(-hidden_size // 16))

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(inner, dt_rank, state) of a resolved config."""
        if self.inner is None or self.dt_rank is None:
            raise InputError("selective_scan.inner is not known yet: call resolve(hidden_size) first")
        return self.inner, self.dt_rank, self.state

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> "SelectiveScan":
        from mjx.models.common.state_space.selective_scan import SelectiveScan

        return SelectiveScan(self, embed, std=std, output_std=output_std, rngs=rngs)

    def flops_per_token(self, embed: int, lengths: Lengths) -> float:
        """The projections, and what a token writes to the states and reads of them."""
        inner, rank, state = self.sizes
        return 2 * inner * (3 * embed + 2 * rank + 2 * state) + 4 * inner * state

    def work(self, embed: int, step: StepOnMesh) -> Work:
        """What the convolution, the steps and the scan make, a float32 state for every few tokens, and while
        these are differentiated the states of them all."""
        inner, _, state = self.sizes
        of_device = Share(step)
        rows, inner = step.rows / of_device.rows, inner / of_device.over("inner", inner)
        sequence = step.sequence // of_device.tokens
        made = 3 * rows * sequence * inner
        chunks = -(-sequence // _CHUNK)
        states = rows * inner * state * 4 / step.itemsize
        exchanges = left_by_parts(of_device, (self.conv_width - 1) * inner, inner * (state + 1))
        kept, between = made + chunks * states, 2 * made + (chunks + 4 * _CHUNK) * states
        if exchanges:  # inputs with those in front of them, two scans, what enters; and all parts' states
            kept += made / 3 + (chunks + of_device.parts) * states
            between += 2 * of_device.parts * of_device.tokens * states
        return Work(exchanges, kept, between)

    def init_cache(self, sizes: CacheSizes, dtype: DTypeLike) -> StateCache:
        inner, _, state = self.sizes
        past = jnp.zeros((sizes.batch, self.conv_width - 1, inner), dtype)
        return StateCache({"value": past}, jnp.zeros((sizes.batch, inner, state), jnp.float32))
