"""State-space duality as a sub-layer (Dao and Gu 2024): the mixer that its authors call Mamba-2's."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx.kernels.ssd import ssd, ssd_step
from mjx.models.common.context import Context
from mjx.models.common.linear import Linear, scaled
from mjx.models.common.parameter import parameter
from mjx.models.common.pattern import Mixed
from mjx.models.common.split import Split
from mjx.models.common.state_space.cache import StateCache
from mjx.models.common.state_space.initial import log_decays
from mjx.models.common.state_space.projections import Convolution, convolved, joined
from mjx.models.common.state_space.sequence import entering
from mjx.models.common.state_space.shares import Axes, Named, on_shares
from mjx.models.common.state_space.ssd_config import SSDConfig
from mjx.models.common.state_space.tokens import advanced, real_tokens, stepped
from mjx.sharding import activation_spec, axes_per_dimension, mesh_shape, relayout, shard

_CONVOLVED = ("value", "B", "C")
_OF_HEADS: Axes = ("batch", "sequence", "heads", "head_dim")
_OF_GROUPS: Axes = ("batch", "sequence", "groups", "state")
_AXES: dict[str, Axes] = {
    "segment_ids": ("batch", "sequence"),
    "gate": _OF_HEADS,
    "value": _OF_HEADS,
    "B": _OF_GROUPS,
    "C": _OF_GROUPS,
    "dt": ("batch", "sequence", "heads"),
    "value taps": ("heads", "head_dim", "conv"),
    "B taps": ("groups", "state", "conv"),
    "C taps": ("groups", "state", "conv"),
    "value bias": ("heads", "head_dim"),
    "B bias": ("groups", "state"),
    "C bias": ("groups", "state"),
    "A": ("heads",),
    "D": ("heads", "head_dim"),
    "dt bias": ("heads",),
    "past of value": ("batch", None, "heads", "head_dim"),
    "past of B": ("batch", None, "groups", "state"),
    "past of C": ("batch", None, "groups", "state"),
    "state": ("batch", "heads", "head_dim", "state"),
}
"""Of all that the recurrence of a device's rows and heads is made of."""


class SSD(nnx.Module):
    """`output(norm(ssd(conv(value), dt, A, conv(B), conv(C)) · silu(gate)))`."""

    def __init__(self, config: SSDConfig, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs):
        sizes = config.sizes
        narrow, heads = {"embed": embed}, {"heads": sizes.heads}
        features = heads | {"head_dim": sizes.head_dim}
        of_group = {"groups": sizes.groups, "state": sizes.state}
        linear = functools.partial(Linear, narrow, bias=config.bias, std=std, rngs=rngs)
        self.gate, self.value = linear(features), linear(features)
        self.B, self.C = linear(of_group), linear(of_group)
        self.dt = linear(heads)
        convolution = functools.partial(
            Convolution, width=config.conv_width, bias=config.conv_bias, rngs=rngs
        )
        self.value_conv = convolution(features)
        self.B_conv, self.C_conv = convolution(of_group), convolution(of_group)
        self.A_log = parameter(
            log_decays(rngs.params(), (sizes.heads,), config.decay_range), "heads", precise=True
        )
        skipping = features if config.skip == "feature" else heads
        self.D = parameter(jnp.ones(tuple(skipping.values()), jnp.float32), *skipping, precise=True)
        self.dt_bias = parameter(config.dt.biases(rngs.params(), (sizes.heads,)), "heads", precise=True)
        normed = config.norm != "none"
        gain = jnp.ones((sizes.heads, sizes.head_dim), jnp.float32)
        self.norm_scale = parameter(gain, "heads", "head_dim", float32=True) if normed else None
        output_bias = config.bias if config.output_bias is None else config.output_bias
        self.output = Linear(features, narrow, bias=output_bias, std=output_std, rngs=rngs)
        self.config = config

    def __call__(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        cache: StateCache | None = None,
    ) -> Mixed:
        config = self.config
        x = relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        projected = self._project(x, parted=context.decoding is not None)
        gate, value, B, C, dt = map(scaled, projected, config.scales)
        gate = shard(gate, "batch", "sequence", "heads", "head_dim")
        value = shard(value, "batch", "sequence", "heads", "head_dim")
        B, C = (shard(array, "batch", "sequence", "groups", "state") for array in (B, C))
        dt = shard(dt, "batch", "sequence", "heads")
        kept = {} if cache is None else cache.named()
        made = on_shares(
            functools.partial(_recurrence, config, stepped(context, x.shape[1]), self._shared_groups()),
            {
                "segment_ids": real_tokens(context, x.shape[1]),
                "gate": gate if config.norm == "none" else None,
                **{"value": value, "B": B, "C": C, "dt": dt},
                **self._parameters(),
                **kept,
            },
            _AXES if config.skip == "feature" else _AXES | {"D": ("heads",)},
            {"y": "value"} | {name: name for name in kept},
        )
        y = made["y"]
        if self.norm_scale is not None:
            groups = config.norm_groups or config.groups
            behind = config.norm == "behind gate"
            y = _gated_norm(groups, config.norm_epsilon, behind, y, gate, self.norm_scale[...])
        y = shard(y, "batch", "sequence", "heads", "head_dim")
        after = None if cache is None else StateCache.of(made)
        return Mixed(shard(self.output(y), "batch", "residual_sequence", "embed"), after)

    def _parameters(self) -> dict[str, Array | None]:
        """Those of convolutions and scan, by the names of `_AXES`."""
        found: dict[str, Array | None] = {
            "A": -jnp.exp(self.A_log[...].astype(jnp.float32)),
            "D": self.D[...],
            "dt bias": self.dt_bias[...],
        }
        for name in _CONVOLVED:
            conv: Convolution = getattr(self, f"{name}_conv")
            found[f"{name} taps"] = conv.kernel[...]
            found[f"{name} bias"] = None if conv.bias is None else conv.bias[...]
        return found

    def _project(self, x: Array, *, parted: bool) -> list[Array]:
        """Gates, values, B, C and steps.

        Where groups are copied (fewer than the tensor degree) B and C are not split as values are, and each
        has its own product; so it has without a gradient (decoding, and its prompt): joining the kernels
        would cost as much as the product.
        """
        linears = [self.gate, self.value, self.B, self.C, self.dt]
        shares = mesh_shape().get("tensor", 1)
        if parted or any(size % shares for size in (self.config.sizes.heads, self.config.groups)):
            return [linear(x) for linear in linears]
        return joined(x, linears, shares)

    def _shared_groups(self) -> tuple[str, ...]:
        """The mesh axes over which heads are split, where groups are copied: each device has heads of one."""
        sizes = self.config.sizes
        (heads,), (groups,) = (
            axes_per_dimension(activation_spec((name,), (size,)), 1)
            for name, size in (("heads", sizes.heads), ("groups", sizes.groups))
        )
        return () if heads == groups or sizes.groups == 1 else heads


def _recurrence(
    config: SSDConfig, single: bool, shared: tuple[str, ...], split: Split | None, arrays: Named
) -> Named:
    """Convolutions and scan of one device's rows, heads and tokens."""
    segment_ids, made = arrays.get("segment_ids"), dict[str, Any]()
    for name in _CONVOLVED:
        made[name], made[f"past of {name}"] = convolved(
            arrays[name],
            arrays[f"{name} taps"],
            arrays.get(f"{name} bias"),
            config.activation,
            past=arrays.get(f"past of {name}"),
            segment_ids=segment_ids,
            single=single,
            split=split,
        )
    value, B, C = (made.pop(name) for name in _CONVOLVED)
    if shared:  # all heads of this device are of one group
        devices = math.prod(jax.lax.axis_size(axis) for axis in shared)
        mine = jax.lax.axis_index(shared) * B.shape[2] // devices
        B, C = (jax.lax.dynamic_slice_in_dim(array, mine, 1, axis=2) for array in (B, C))
    dt, step = arrays["dt"], {"dt_bias": arrays["dt bias"], "dt_softplus": True}
    if config.dt.limit is not None:
        dt, step = config.dt.bounded(dt, arrays["dt bias"]), {}
    gate, options = arrays.get("gate"), {"D": arrays["D"], **step}
    if single:
        z = None if gate is None else gate[:, 0]
        value, dt, B, C = (array[:, 0] for array in (value, dt, B, C))
        y, state = ssd_step(arrays["state"], value, dt, arrays["A"], B, C, z=z, **options)
        return {"y": y[:, None], **advanced(arrays, {"state": state, **made})}
    scan = functools.partial(
        ssd,
        *(value, dt, arrays["A"], B, C),
        segment_ids=segment_ids,
        chunk_size=config.chunk_size,
        implementation=config.implementation,
        return_final_state=True,
    )
    before = arrays.get("state")
    if split is not None:
        _, left = scan(**step)
        steps = config.dt.bounded(arrays["dt"], arrays["dt bias"])
        before = entering(split, arrays["A"][:, None, None], steps, left, segment_ids)
    y, state = scan(z=gate, initial_state=before, **options)
    return {"y": y, "state": state, **made} if "state" in arrays else {"y": y}


@functools.partial(jax.checkpoint, static_argnums=(0, 1, 2), prevent_cse=False)
def _gated_norm(
    groups: int,
    epsilon: float,
    behind: bool,
    y: Float[Array, "batch sequence heads head_dim"],
    gate: Float[Array, "batch sequence heads head_dim"],
    scale: Float[Array, "heads head_dim"],
) -> Float[Array, "batch sequence heads head_dim"]:
    """An RMSNorm within each group, behind the gate or before it; in float32, and made again backwards."""
    h, opened = y.astype(jnp.float32), jax.nn.silu(gate.astype(jnp.float32))
    h = h * opened if behind else h
    grouped = h.reshape(*h.shape[:2], groups, -1)
    square = jnp.mean(jnp.square(grouped), axis=-1, keepdims=True)
    h = (grouped * jax.lax.rsqrt(square + epsilon)).reshape(h.shape) * scale.astype(jnp.float32)
    return (h if behind else h * opened).astype(y.dtype)
