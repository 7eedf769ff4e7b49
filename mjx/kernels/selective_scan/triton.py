"""The selective scan as Triton kernels, for GPUs from Ampere on.

The states of all tokens, [sequence, channels, state], exist in registers only. The forward pass keeps those
that enter each chunk, and the backward pass makes the others again from them, as `xla` does. What is beyond
inputs and outputs in memory is, in float32: a state for each chunk, in the backward pass as many gradients of
states, and gradients of B and C for each block of channels, before they are summed.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mjx.kernels.capability import current_device
from mjx.kernels.padding import pad_to, round_up
from mjx.kernels.triton_launch import Launch, Launcher, launch_on_gpu

KERNELS = "mjx.kernels.selective_scan.triton_kernels"


@dataclasses.dataclass(frozen=True)
class Block:
    """Channels of a program, and its warps.

    32 · num_warps > time: Triton then gives whole rows of a tile to a warp, and scans need no barrier.
    """

    channels: int
    num_warps: int


@dataclasses.dataclass(frozen=True)
class KernelConfig:
    """A state is kept for each `time` tokens, in both passes."""

    time: int
    forward: Block
    backward: Block


_FEW_STATES = KernelConfig(time=32, forward=Block(32, 4), backward=Block(16, 4))
_MANY_STATES = KernelConfig(time=64, forward=Block(16, 4), backward=Block(8, 4))

CONFIGS = {(8.0, 64): _FEW_STATES, (8.0, 256): _MANY_STATES, (9.0, 64): _FEW_STATES, (9.0, 256): _MANY_STATES}
"""(from this compute capability on, up to this number of states) → what compiles without a spilled register.

Longer chunks keep fewer states in memory, which counts where there are many.
"""


def config_for(state: int, compute_capability: float | None) -> KernelConfig:
    """None: a GPU that is not here, as when compiling ahead of time. The newest is taken."""
    since = {since for since, _ in CONFIGS if compute_capability is None or since <= compute_capability}
    newest = max(since, default=min(CONFIGS)[0])
    return CONFIGS[min(key for key in CONFIGS if key[0] == newest and key[1] >= state)]


def selective_scan(
    u: Float[Array, "batch sequence channels"],
    delta: Float[Array, "batch sequence channels"],
    A: Float[Array, "channels state"],
    B: Float[Array, "batch sequence state"],
    C: Float[Array, "batch sequence state"],
    *,
    D: Float[Array, " channels"] | None,
    z: Float[Array, "batch sequence channels"] | None,
    initial_state: Float[Array, "batch channels state"],
    starts: Bool[Array, "batch sequence"] | None,
    config: KernelConfig | None = None,
    launch: Launcher = launch_on_gpu,
) -> tuple[Float[Array, "batch sequence channels"], Float[Array, "batch channels state"]]:
    """As `reference.selective_scan`; `launch` runs the kernels.

    Raises:
        InputError: Triton or jax-triton is not installed.
    """
    arrays = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "initial": initial_state}
    starts = None if starts is None else starts.astype(jnp.int32)
    config = config or config_for(A.shape[1], current_device()[1])
    results: Any = _scan(config, launch, {**arrays, "starts": starts})
    return results


class _Call:
    """Shapes and layouts of one call."""

    def __init__(self, config: KernelConfig, arrays: dict[str, Array | None]):
        self.config = config
        u, A = arrays["u"], arrays["A"]
        assert u is not None
        assert A is not None
        self.batch, self.length, self.channels = u.shape
        self.state = A.shape[1]
        self.padded_channels = round_up(
            self.channels, math.lcm(config.forward.channels, config.backward.channels)
        )
        self.padded_length = round_up(self.length, config.time)
        self.chunks = self.padded_length // config.time
        self.present = {name for name, array in arrays.items() if array is not None}
        self.given = {name: self.lay(name, array) for name, array in arrays.items()}

    def lay(self, name: str, array: Array | None) -> Array:
        """As the kernels read it: time last, whole blocks of zeros behind the end.

        Zeros of delta let the state pass. What is absent has one element, which is not read.
        """
        if array is None:
            return jnp.zeros((1,), jnp.int32 if name == "starts" else jnp.float32)
        if name in ("u", "delta", "z", "d_y"):
            return pad_to(jnp.swapaxes(array, 1, 2), {1: self.padded_channels, 2: self.padded_length})
        if name in ("B", "C"):
            return pad_to(jnp.swapaxes(array, 1, 2), {2: self.padded_length})
        if name == "starts":
            return pad_to(array, {1: self.padded_length})
        return pad_to(array, {array.ndim - (1 if name == "D" else 2): self.padded_channels})

    def tokens(self, laid: Array) -> Array:
        """[batch, sequence, …] again."""
        return jnp.swapaxes(laid[:, : self.channels, : self.length], 1, 2)

    def launch(
        self, kernel: str, block: Block, inputs: dict[str, Array], outputs: dict[str, Any], **more: int
    ) -> Launch:
        return Launch(
            kernel=f"{KERNELS}:{kernel}",
            grid=(self.padded_channels // block.channels, self.batch),
            inputs=inputs,
            outputs={name: jax.ShapeDtypeStruct(*shape) for name, shape in outputs.items()},
            constants={
                "channels": self.padded_channels,
                "length": self.padded_length,
                "state_size": self.state,
                "block_channels": block.channels,
                "block_time": self.config.time,
                "has_skip": "D" in self.present,
                "has_gate": "z" in self.present,
                "has_starts": "starts" in self.present,
                **more,
            },
            num_warps=block.num_warps,
        )

    def forward(self) -> Launch:
        inputs = {
            name: self.given[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "starts", "initial")
        }
        u, wide = self.given["u"], jnp.float32
        per_chunk = (self.batch, self.chunks + 1, self.padded_channels, self.state)
        outputs = {"y": (u.shape, u.dtype), "states": (per_chunk, wide)}
        return self.launch("forward_kernel", self.config.forward, inputs, outputs)

    def backward(self, states: Array, d_y: Array, d_final: Array) -> Launch:
        inputs = {name: self.given[name] for name in ("u", "delta", "A", "B", "C", "D", "z", "starts")}
        inputs |= {"states": states, "d_y": self.lay("d_y", d_y), "d_final": self.lay("d_final", d_final)}
        block, wide = self.config.backward, jnp.float32
        u, z = self.given["u"], self.given["z"]
        blocks = self.padded_channels // block.channels
        per_block = (self.batch, blocks, self.state, self.padded_length)
        outputs = {
            "u": (u.shape, u.dtype),
            "delta": (u.shape, wide),
            "A": ((self.batch, self.padded_channels, self.state), wide),
            "B": (per_block, wide),
            "C": (per_block, wide),
            "D": ((self.batch, self.padded_channels), wide),
            "z": (z.shape, z.dtype),
            "states": (states.shape, wide),
        }
        padded_state = 1 << (self.state - 1).bit_length()
        return self.launch("backward_kernel", block, inputs, outputs, padded_state=padded_state)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(config: KernelConfig, launch: Launcher, arrays: dict[str, Array | None]):
    return _forward(config, launch, arrays)[0]


def _forward(config: KernelConfig, launch: Launcher, arrays: dict[str, Array | None]):
    call = _Call(config, arrays)
    made = launch(call.forward())
    final = made["states"][:, -1, : call.channels]
    return (call.tokens(made["y"]), final), (arrays, made["states"])


def _backward(config: KernelConfig, launch: Launcher, residuals, gradients):
    arrays, states = residuals
    call = _Call(config, arrays)
    found = launch(call.backward(states, *gradients))
    kinds = {name: array.dtype for name, array in arrays.items() if array is not None}
    # The kernel's is that of the state after the first token.
    first_decay = jnp.exp(arrays["delta"][:, 0, :, None] * arrays["A"])
    if arrays["starts"] is not None:
        first_decay = jnp.where(arrays["starts"][:, 0, None, None] != 0, 0, first_decay)
    summed = {name: jnp.sum(found[name], axis=1)[..., : call.length] for name in ("B", "C")}
    gradient = {
        **{name: call.tokens(found[name]) for name in ("u", "delta")},
        "A": jnp.sum(found["A"], axis=0)[: call.channels],
        **{name: jnp.swapaxes(array, 1, 2).astype(kinds[name]) for name, array in summed.items()},
        "D": jnp.sum(found["D"], axis=0)[: call.channels] if "D" in kinds else None,
        "z": call.tokens(found["z"]) if "z" in kinds else None,
        "initial": first_decay * found["states"][:, 0, : call.channels],
        "starts": None,
    }
    return (gradient,)


_scan.defvjp(_forward, _backward)
