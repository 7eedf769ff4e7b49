"""The experts of a mixture: many MLPs of one shape."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx.models.common.mlp import MLPConfig, activate
from mjx.models.common.moe.config import MoEConfig
from mjx.models.common.parameter import parameter


class Weights(NamedTuple):
    """Of experts, along the leading axis; those of one are without it. None: they have none."""

    gate: Float[Array, "experts embed expert_mlp"] | None
    up: Float[Array, "experts embed expert_mlp"]
    down: Float[Array, "experts expert_mlp embed"]
    gate_bias: Float[Array, "experts expert_mlp"] | None
    up_bias: Float[Array, "experts expert_mlp"] | None
    down_bias: Float[Array, "experts embed"] | None


AXES = {
    "gate": ("experts", "embed", "expert_mlp"),
    "up": ("experts", "embed", "expert_mlp"),
    "down": ("experts", "expert_mlp", "embed"),
    "gate_bias": ("experts", "expert_mlp"),
    "up_bias": ("experts", "expert_mlp"),
    "down_bias": ("experts", "embed"),
}
"""The logical axes of each. `embed` are the features that experts read and write, latent ones too."""


class ExpertLinear(nnx.Module):
    """A linear map for each expert."""

    def __init__(
        self, shape: tuple[int, int, int], axes: tuple[str, ...], *, bias: bool, std: float, rngs: nnx.Rngs
    ):
        kernel = std * jax.random.normal(rngs.params(), shape, jnp.float32)
        self.kernel = parameter(kernel, *axes)
        zeros = jnp.zeros((shape[0], shape[2]), jnp.float32)
        self.bias = parameter(zeros, axes[0], axes[2]) if bias else None


class Experts(nnx.Module):
    """`down(activation(gate(x)) * up(x))` of every expert, or `down(activation(up(x)))` when not gated."""

    def __init__(self, config: MoEConfig, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs):
        experts, mlp, width = config.experts, config.mlp, config.latent or embed
        wide, narrow = (experts, width, mlp.features), (experts, mlp.features, width)

        def into(axes: tuple[str, ...]) -> ExpertLinear:
            return ExpertLinear(wide, axes, bias=mlp.bias, std=std, rngs=rngs)

        self.gate = into(AXES["gate"]) if mlp.gated else None
        self.up = into(AXES["up"])
        self.down = ExpertLinear(narrow, AXES["down"], bias=mlp.bias, std=output_std, rngs=rngs)

    @property
    def weights(self) -> Weights:
        """All of them."""
        gate, up, down = self.gate, self.up, self.down
        biases = (None if each is None or each.bias is None else each.bias[...] for each in (gate, up, down))
        return Weights(
            None if gate is None else gate.kernel[...],
            up.kernel[...],
            down.kernel[...],
            *biases,
        )


@dataclasses.dataclass(frozen=True)
class OneExpert:
    """What an expert makes of rows, each weighed by its probability."""

    mlp: MLPConfig
    on_input: bool
    """Whether probabilities multiply what it reads, or else what it writes."""

    def __call__(
        self, rows: Float[Array, "rows embed"], probabilities: Float[Array, " rows"], weights: Weights
    ) -> Float[Array, "rows embed"]:
        dtype, factor = rows.dtype, probabilities[:, None]
        if self.on_input:
            rows = (rows * factor).astype(dtype)
        up = rows @ weights.up
        gate = None if weights.gate is None else rows @ weights.gate
        if weights.up_bias is not None:
            up = up + weights.up_bias
        if gate is not None and weights.gate_bias is not None:
            gate = gate + weights.gate_bias
        hidden = activate(self.mlp, gate, up)
        if not self.on_input:
            # On the hidden features, not on what is written: the backward pass then needs no output, so
            # that none is sent or computed again for it.
            hidden = (hidden * factor).astype(dtype)
        y = hidden @ weights.down
        if weights.down_bias is not None:
            bias = weights.down_bias
            y = y + (bias if self.on_input else (bias * factor).astype(dtype))
        return y
