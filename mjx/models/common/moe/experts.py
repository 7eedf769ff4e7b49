"""The experts of a mixture: many MLPs of one shape."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
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


def shapes_of(config: MoEConfig, embed: int) -> Any:
    """`Weights` of a mixture, of each its shape; `embed` are the features of the stream."""
    experts, mlp, width = config.experts, config.mlp, config.latent or embed

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((experts, *sizes), jnp.float32)

    wide, bias = shape(width, mlp.features), shape(mlp.features) if mlp.bias else None
    return Weights(
        gate=wide if mlp.gated else None,  # type: ignore[arg-type]
        up=wide,  # type: ignore[arg-type]
        down=shape(mlp.features, width),  # type: ignore[arg-type]
        gate_bias=bias if mlp.gated else None,  # type: ignore[arg-type]
        up_bias=bias,  # type: ignore[arg-type]
        down_bias=shape(width) if mlp.bias else None,  # type: ignore[arg-type]
    )


class ExpertLinear(nnx.Module):
    """A linear map for each expert."""

    def __init__(
        self, shape: tuple[int, ...], axes: tuple[str, ...], *, bias: bool, std: float, rngs: nnx.Rngs
    ):
        kernel = std * jax.random.normal(rngs.params(), shape, jnp.float32)
        self.kernel = parameter(kernel, *axes)
        zeros = jnp.zeros((shape[0], shape[2]), jnp.float32)
        self.bias = parameter(zeros, axes[0], axes[2]) if bias else None


class Experts(nnx.Module):
    """`down(activation(gate(x)) * up(x))` of every expert, or `down(activation(up(x)))` when not gated."""

    def __init__(self, config: MoEConfig, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs):
        mlp, shapes = config.mlp, shapes_of(config, embed)

        def into(name: str) -> ExpertLinear:
            return ExpertLinear(shapes.up.shape, AXES[name], bias=mlp.bias, std=std, rngs=rngs)

        self.gate = into("gate") if mlp.gated else None
        self.up = into("up")
        self.down = ExpertLinear(shapes.down.shape, AXES["down"], bias=mlp.bias, std=output_std, rngs=rngs)

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


KEPT = "kept of experts"
"""What the backward pass keeps where a mesh splits experts: what they read, and what products made of it."""
Product = Callable[[Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class OneExpert:
    """What an expert makes of rows, each weighed by its probability."""

    mlp: MLPConfig
    on_input: bool
    """Whether probabilities multiply what it reads, or else what it writes."""

    def __call__(
        self,
        rows: Float[Array, "rows embed"],
        probabilities: Float[Array, " rows"],
        weights: Weights,
        product: Product = jnp.matmul,
    ) -> Float[Array, "rows embed"]:
        """`weights` are of one expert, or, with a `product` of grouped rows, kernels of all and each row's
        biases."""
        dtype, factor = rows.dtype, probabilities[:, None]
        if self.on_input:
            rows = (rows * factor).astype(dtype)
        up = checkpoint_name(product(rows, weights.up), KEPT)
        gate = None if weights.gate is None else checkpoint_name(product(rows, weights.gate), KEPT)
        if weights.up_bias is not None:
            up = up + weights.up_bias
        if gate is not None and weights.gate_bias is not None:
            gate = gate + weights.gate_bias
        # On the hidden features, not on what is written: the backward pass then needs no output, so that none
        # is sent or computed again for it.
        hidden = activate(self.mlp, gate, up, None if self.on_input else factor)
        y = product(hidden, weights.down)
        if weights.down_bias is not None:
            bias = weights.down_bias
            y = y + (bias if self.on_input else (bias * factor).astype(dtype))
        return y
