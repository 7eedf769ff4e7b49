"""The feed-forward sub-layer, gated or not."""

import dataclasses
import functools
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.common.context import Context
from mjx.models.common.linear import Linear, project, scaled
from mjx.models.common.pattern import Lengths, Mixed, MixerConfig
from mjx.sharding import relayout, shard

Activation = Literal["gelu", "gelu-tanh", "silu", "relu", "relu2", "quick-gelu"]


def _quick_gelu(x: Array) -> Array:
    return x * jax.nn.sigmoid(1.702 * x)


def _squared_relu(x: Array) -> Array:
    return jnp.square(jax.nn.relu(x))


ACTIVATIONS = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu-tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "relu2": _squared_relu,
    "quick-gelu": _quick_gelu,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLPConfig(MixerConfig):
    """Sizes and non-linearity of an MLP."""

    name: ClassVar[str] = "mlp"

    features: int
    """Hidden features (Megatron's ffn_hidden_size)."""
    activation: Activation = "gelu"
    """gelu is exact (erf), gelu-tanh approximates it; relu2 is relu squared, quick-gelu x · σ(1.702 x)."""
    gated: bool = False
    """Multiply the activation by a second projection (Shazeer 2020): with silu, SwiGLU."""
    bias: bool = False
    """Add biases to all projections."""
    clamp: float | None = None
    """Bound the gate from above and the linear half from both sides before they meet (gpt-oss: 7)."""
    linear_offset: float = 0.0
    """Added to the linear half of a gated MLP (gpt-oss: 1)."""
    gate_scale: float = 1.0
    """Factor on the gate in front of its activation (μP)."""

    def __post_init__(self):
        if self.features < 1:
            raise InputError(f"mlp.features = {self.features} must be positive")
        if self.clamp is not None and not self.clamp > 0:
            raise InputError(f"mlp.clamp = {self.clamp} must be positive, or null for none")
        if self.linear_offset and not self.gated:
            raise InputError(f"mlp.linear_offset = {self.linear_offset} needs mlp.gated = true")
        check_scale("mlp.gate_scale", self.gate_scale)
        if self.gate_scale != 1 and not self.gated:
            raise InputError(f"mlp.gate_scale = {self.gate_scale} needs mlp.gated = true")

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> "MLP":
        return MLP(self, embed, std=std, output_std=output_std, rngs=rngs)

    def flops_per_token(self, embed: int, lengths: Lengths) -> int:
        return 2 * (3 if self.gated else 2) * embed * self.features

    def num_parameters(self, embed: int) -> int:
        """Of a model of this width."""
        wide = 2 if self.gated else 1
        biases = wide * self.features + embed if self.bias else 0
        return (wide + 1) * embed * self.features + biases


class MLP(nnx.Module):
    """`down(activation(gate(x)) * up(x))`, or `down(activation(up(x)))` when not gated."""

    def __init__(self, config: MLPConfig, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs):
        wide = {"mlp": config.features}
        narrow = {"embed": embed}
        self.gate = Linear(narrow, wide, bias=config.bias, std=std, rngs=rngs) if config.gated else None
        self.up = Linear(narrow, wide, bias=config.bias, std=std, rngs=rngs)
        self.down = Linear(wide, narrow, bias=config.bias, std=output_std, rngs=rngs)
        self.config = config

    def __call__(
        self, x: Float[Array, "batch residual_sequence embed"], context: Context, cache: None = None
    ) -> Mixed:
        x = relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        return self.written(*self.project(x, joined=context.decoding is None))

    def project(
        self, x: Float[Array, "batch sequence embed"], *, joined: bool
    ) -> tuple[Array | None, Float[Array, "batch sequence mlp"]]:
        """Gate, if there is one, and the linear half."""
        return (None, self.up(x)) if self.gate is None else self._gate_and_up(x, joined)

    def written(self, gate: Array | None, up: Float[Array, "batch sequence mlp"]) -> Mixed:
        """What `project` made, activated, and back."""
        h = activate(self.config, gate, up)
        h = shard(h, "batch", "sequence", "mlp")
        return Mixed(shard(self.down(h), "batch", "residual_sequence", "embed"))

    def _gate_and_up(self, x: Array, joined: bool) -> tuple[Array, Array]:
        """Both projections as one product: one GEMM, and one collective for the gradient of `x`.

        They are joined along a new axis between `embed` and `mlp`, which no mesh axis splits. Without a
        gradient (decoding, and its prompt) joining the kernels would cost as much as the product.
        """
        assert self.gate is not None
        if not joined:
            return self.gate(x), self.up(x)
        kernel = jnp.stack([self.gate.kernel[...], self.up.kernel[...]], axis=1).astype(x.dtype)
        h = project(x, kernel)
        if self.gate.bias is not None and self.up.bias is not None:
            h = h + jnp.stack([self.gate.bias[...], self.up.bias[...]]).astype(x.dtype)
        return _parted(h)


@jax.custom_vjp
def _parted(h: Float[Array, "batch sequence 2 mlp"]) -> tuple[Array, Array]:
    """Both halves. Their gradients are joined again; derived, it would be a sum of two padded arrays, which
    XLA's CPU backend computes one number at a time."""
    return h[..., 0, :], h[..., 1, :]


_parted.defvjp(lambda h: (_parted(h), None), lambda _, gradients: (jnp.stack(gradients, axis=-2),))


@functools.partial(jax.checkpoint, static_argnums=0, prevent_cse=False)
def activate(
    config: MLPConfig, gate: Array | None, up: Array, factor: Float[Array, "..."] | None = None
) -> Array:
    """The hidden features of an MLP, times a factor.

    The backward pass keeps what the products made and computes the rest again, as a fused kernel would.
    """
    activation, clamp = ACTIVATIONS[config.activation], config.clamp
    if gate is None:
        hidden = activation(up if clamp is None else jnp.clip(up, -clamp, clamp))
    else:
        gate = scaled(gate, config.gate_scale)
        if clamp is not None:
            gate, up = jnp.minimum(gate, clamp), jnp.clip(up, -clamp, clamp)
        hidden = activation(gate) * (up + config.linear_offset if config.linear_offset else up)
    return hidden if factor is None else (hidden * factor).astype(hidden.dtype)
