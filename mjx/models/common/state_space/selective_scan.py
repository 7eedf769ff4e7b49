"""The selective scan as a sub-layer (Gu and Dao 2023, section 3.4)."""

import functools

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx.kernels.selective_scan import selective_scan, selective_scan_step
from mjx.models.common.context import Context
from mjx.models.common.linear import Linear, project
from mjx.models.common.norm import Norm, normalize
from mjx.models.common.parameter import parameter
from mjx.models.common.pattern import Mixed
from mjx.models.common.split import Split
from mjx.models.common.state_space.cache import StateCache
from mjx.models.common.state_space.initial import log_decays_of_states, step_weights
from mjx.models.common.state_space.projections import Convolution, convolved, joined
from mjx.models.common.state_space.selective_scan_config import SelectiveScanConfig
from mjx.models.common.state_space.sequence import entering
from mjx.models.common.state_space.shares import Axes, Named, on_shares
from mjx.models.common.state_space.tokens import advanced, real_tokens, stepped
from mjx.sharding import mesh_shape, relayout, shard

_OF_CHANNELS: Axes = ("batch", "sequence", "inner")
_AXES: dict[str, Axes] = {
    "segment_ids": ("batch", "sequence"),
    "gate": _OF_CHANNELS,
    "value": _OF_CHANNELS,
    "taps": ("inner", "conv"),
    "bias": ("inner",),
    "past of value": ("batch", None, "inner"),
    "dt": _OF_CHANNELS,
    "dt bias": ("inner",),
    "A": ("inner", "state"),
    "B": ("batch", "sequence", "state"),
    "C": ("batch", "sequence", "state"),
    "D": ("inner",),
    "state": ("batch", "inner", "state"),
}
"""Of all that the recurrence of a device's rows and channels is made of."""


class SelectiveScan(nnx.Module):
    """`output(scan(u, dt(u), A, B(u), C(u)) · silu(gate))` of `u = conv(value)`."""

    def __init__(
        self, config: SelectiveScanConfig, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs
    ):
        inner, rank, state = config.sizes
        narrow, channels = {"embed": embed}, {"inner": inner}
        linear = functools.partial(Linear, std=std, rngs=rngs)
        self.gate = linear(narrow, channels, bias=config.bias)
        self.value = linear(narrow, channels, bias=config.bias)
        self.value_conv = Convolution(channels, config.conv_width, bias=config.conv_bias, rngs=rngs)
        self.steps = linear(channels, {"latent": rank})
        self.B, self.C = linear(channels, {"state": state}), linear(channels, {"state": state})
        norm, gains = config.inner_norm, config.inner_norm_gain
        self.steps_norm = Norm(norm, {"latent": rank}) if norm and gains else None
        self.B_norm = Norm(norm, {"state": state}) if norm and gains else None
        self.C_norm = Norm(norm, {"state": state}) if norm and gains else None
        weights = step_weights(rngs.params(), (rank, inner), config.dt_scale, config.dt_weights)
        self.dt = parameter(weights, "latent", "inner")
        self.dt_bias = parameter(config.dt.biases(rngs.params(), (inner,)), "inner", precise=True)
        self.A_log = parameter(log_decays_of_states(inner, state), "inner", "state", precise=True)
        self.D = parameter(jnp.ones((inner,), jnp.float32), "inner", precise=True)
        self.output = linear(channels, narrow, bias=config.bias, std=output_std)
        self.config = config

    def __call__(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        cache: StateCache | None = None,
    ) -> Mixed:
        config = self.config
        x = relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        gate, value = self._gate_and_value(x, parted=context.decoding is not None)
        gate, value = (shard(array, "batch", "sequence", "inner") for array in (gate, value))
        segment_ids, single = real_tokens(context, x.shape[1]), stepped(context, x.shape[1])
        named = {} if cache is None else cache.named()
        bias = self.value_conv.bias
        made = on_shares(
            functools.partial(_convolution, config, single),
            {
                "segment_ids": segment_ids,
                "value": value,
                "taps": self.value_conv.kernel[...],
                "bias": None if bias is None else bias[...],
                "past of value": named.get("past of value"),
            },
            _AXES,
            {"value": "value"} | ({"past of value": "past of value"} if named else {}),
        )
        u = shard(made["value"], "batch", "sequence", "inner")
        dt, B, C = self._selected(u)
        scanned = on_shares(
            functools.partial(_scan, config, single),
            {
                "segment_ids": segment_ids,
                "gate": gate,
                "value": u,
                "dt": shard(dt, "batch", "sequence", "inner"),
                "dt bias": self.dt_bias[...],
                "A": -jnp.exp(self.A_log[...].astype(jnp.float32)),
                "B": B,
                "C": C,
                "D": self.D[...],
                "state": named.get("state"),
            },
            _AXES,
            {"y": "value"} | ({"state": "state"} if named else {}),
        )
        y = shard(scanned["y"], "batch", "sequence", "inner")
        after = StateCache.of(made | scanned) if named else None
        return Mixed(shard(self.output(y), "batch", "residual_sequence", "embed"), after)

    def _gate_and_value(self, x: Array, *, parted: bool) -> list[Array]:
        """As one product; without a gradient joining the kernels would cost as much as the product."""
        shares, linears = mesh_shape().get("tensor", 1), [self.gate, self.value]
        if parted or self.config.sizes[0] % shares:
            return [linear(x) for linear in linears]
        return joined(x, linears, shares)

    def _selected(self, u: Float[Array, "batch sequence inner"]) -> tuple[Array, Array, Array]:
        """Steps before bias and softplus, B and C of each token, as one product that sums over channels."""
        config, norms = self.config, (self.steps_norm, self.B_norm, self.C_norm)
        parts = joined(u, [self.steps, self.B, self.C], 1)
        steps, B, C = (shard(part, "batch", "sequence", None) for part in parts)
        if config.inner_norm is not None:
            steps, B, C = (
                normalize(config.inner_norm, (-1,), part, None, None) if norm is None else norm(part)
                for norm, part in zip(norms, (steps, B, C), strict=True)
            )
        return project(steps, self.dt[...].astype(u.dtype)), B, C


def _convolution(config: SelectiveScanConfig, single: bool, split: Split | None, arrays: Named) -> Named:
    """Of one device's rows, channels and tokens."""
    past = arrays.get("past of value")
    value, after = convolved(
        *(arrays["value"], arrays["taps"], arrays.get("bias"), config.activation),
        past=past,
        segment_ids=arrays.get("segment_ids"),
        single=single,
        split=split,
    )
    if past is None:
        return {"value": value}
    now = {"past of value": after}
    return {"value": value, **(advanced(arrays, now) if single else now)}


def _scan(config: SelectiveScanConfig, single: bool, split: Split | None, arrays: Named) -> Named:
    """Of one device's rows, channels and tokens."""
    u, dt, B, C = (arrays[name] for name in ("value", "dt", "B", "C"))
    gate, step = arrays["gate"], {"delta_bias": arrays["dt bias"], "delta_softplus": True}
    if config.dt.limit is not None:
        dt, step = config.dt.bounded(dt, arrays["dt bias"]), {}
    options = {"D": arrays["D"], **step}
    if single:
        u, dt, B, C, z = (array[:, 0] for array in (u, dt, B, C, gate))
        y, state = selective_scan_step(arrays["state"], u, dt, arrays["A"], B, C, z=z, **options)
        return {"y": y[:, None], **advanced(arrays, {"state": state})}
    segment_ids, before = arrays.get("segment_ids"), arrays.get("state")
    scan = functools.partial(
        selective_scan,
        *(u, dt, arrays["A"], B, C),
        segment_ids=segment_ids,
        implementation=config.implementation,
        return_final_state=True,
    )
    if split is not None:
        _, left = scan(**step)
        steps = config.dt.bounded(arrays["dt"], arrays["dt bias"])
        before = entering(split, arrays["A"], steps, left, segment_ids)
    y, state = scan(z=gate, initial_state=before, **options)
    return {"y": y, "state": state} if "state" in arrays else {"y": y}
