"""A short causal convolution of each channel by itself, as state-space mixers have it before their scan."""

from typing import Any, Literal, overload

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx.errors import InputError
from mjx.kernels.arguments import check_dtypes, check_shapes
from mjx.kernels.causal_conv1d import xla

Activation = Literal["silu"]


@overload
def causal_conv1d(*arrays: Any, return_final_state: Literal[False] = False, **options: Any) -> Array: ...
@overload
def causal_conv1d(*arrays: Any, return_final_state: Literal[True], **options: Any) -> tuple[Array, Array]: ...
def causal_conv1d(
    x: Float[Array, "batch sequence channels"],
    weight: Float[Array, "channels width"],
    bias: Float[Array, " channels"] | None = None,
    *,
    activation: Activation | None = None,
    initial_state: Float[Array, "batch past channels"] | None = None,
    return_final_state: bool = False,
    segment_ids: Int[Array, "batch sequence"] | None = None,
) -> (
    Float[Array, "batch sequence channels"]
    | tuple[Float[Array, "batch sequence channels"], Float[Array, "batch past channels"]]
):
    """yₜ = activation(Σₖ weight[:, k] xₜ₋₍width₋₁₎₊ₖ + bias): the last tap is the token itself.

    The state is the past: the width - 1 inputs before the next token, oldest first, of the type of x. It
    is zero where nothing is given. Sums are float32.

    No token sees inputs of another segment id than its own; the initial state is the past of the first
    document, and the final state that of a token which would continue the last. Segment 0 is padding, before
    and behind documents: its output is zero, whatever stands there. (Inside a document it is an input of 0.)

    Raises InputError for shapes, types and options that do not fit.
    """
    x, weight = jnp.asarray(x), jnp.asarray(weight)
    bias, initial_state, segment_ids = (
        None if array is None else jnp.asarray(array) for array in (bias, initial_state, segment_ids)
    )
    state = {"initial_state": initial_state}
    _check("causal_conv1d", "batch sequence", x, weight, bias, activation, state, segment_ids)
    if initial_state is None:
        initial_state = jnp.zeros((x.shape[0], weight.shape[1] - 1, x.shape[2]), x.dtype)
    y, final_state = xla.causal_conv1d(
        x,
        weight,
        bias,
        silu=activation == "silu",
        initial_state=initial_state.astype(x.dtype),
        segment_ids=segment_ids,
    )
    return (y, final_state) if return_final_state else y


def causal_conv1d_step(
    state: Float[Array, "batch past channels"],
    x: Float[Array, "batch channels"],
    weight: Float[Array, "channels width"],
    bias: Float[Array, " channels"] | None = None,
    *,
    activation: Activation | None = None,
) -> tuple[Float[Array, "batch channels"], Float[Array, "batch past channels"]]:
    """One token of `causal_conv1d`, for decoding: its output and the past of the next."""
    state, x, weight = jnp.asarray(state), jnp.asarray(x), jnp.asarray(weight)
    bias = None if bias is None else jnp.asarray(bias)
    _check("causal_conv1d_step", "batch", x, weight, bias, activation, {"state": state}, None)
    y, state = xla.causal_conv1d(
        x[:, None],
        weight,
        bias,
        silu=activation == "silu",
        initial_state=state.astype(x.dtype),
        segment_ids=None,
    )
    return y[:, 0], state


def _check(op: str, leading: str, x, weight, bias, activation, state, segment_ids) -> None:
    sizes = check_shapes(
        op,
        {
            "x": (x, f"{leading} channels"),
            "weight": (weight, "channels width"),
            "bias": (bias, "channels"),
            "segment_ids": (segment_ids, "batch sequence"),
        },
    )
    for name, array in state.items():
        expected = (sizes["batch"], sizes["width"] - 1, sizes["channels"])
        if array is not None and array.shape != expected:
            raise InputError(
                f"{op}: {name} has shape {array.shape} and has to be [batch, width - 1, channels] = "
                f"{expected}, given x {x.shape} and weight {weight.shape}"
            )
    check_dtypes(
        op,
        same={"x": x},
        floating={"weight": weight, "bias": bias, **state},
        integer={"segment_ids": segment_ids},
    )
    if activation not in (None, "silu"):
        raise InputError(f"{op}: activation = {activation!r} is not known (choose silu or None)")
