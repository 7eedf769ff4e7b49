"""The selective scan (Gu and Dao 2023): a state space with a decay for each channel and state."""

from importlib import import_module
from typing import Any, Literal, overload

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx.kernels.arguments import check_dtypes, check_shapes, time_step
from mjx.kernels.call import given, implementation_of
from mjx.kernels.documents import document_starts, keep_real
from mjx.kernels.selective_scan import step
from mjx.kernels.selective_scan.implementations import IMPLEMENTATIONS


@overload
def selective_scan(*arrays: Any, return_final_state: Literal[False] = False, **options: Any) -> Array: ...
@overload
def selective_scan(
    *arrays: Any, return_final_state: Literal[True], **options: Any
) -> tuple[Array, Array]: ...
def selective_scan(
    u: Float[Array, "batch sequence channels"],
    delta: Float[Array, "batch sequence channels"],
    A: Float[Array, "channels state"],
    B: Float[Array, "batch sequence state"],
    C: Float[Array, "batch sequence state"],
    *,
    D: Float[Array, " channels"] | None = None,
    z: Float[Array, "batch sequence channels"] | None = None,
    delta_bias: Float[Array, " channels"] | None = None,
    delta_softplus: bool = False,
    initial_state: Float[Array, "batch channels state"] | None = None,
    return_final_state: bool = False,
    segment_ids: Int[Array, "batch sequence"] | None = None,
    implementation: str = "auto",
) -> (
    Float[Array, "batch sequence channels"]
    | tuple[Float[Array, "batch sequence channels"], Float[Array, "batch channels state"]]
):
    """hₜ = exp(deltaₜ A) hₜ₋₁ + deltaₜ uₜ Bₜ and yₜ = (hₜ · Cₜ + D uₜ) silu(zₜ), for each channel.

    A is negative. delta becomes softplus(delta + delta_bias), where these are asked for. Decays and states
    are float32, the output has the type of u, and the final state is float32.

    Where the segment id changes the state begins at zero, so that packed documents equal separate ones;
    the initial state is the past of the first. Segment 0 is padding: its output is zero, whatever stands
    there, and the state passes it unchanged, so that the final state is that after the last real token.

    `implementation` is one of `mjx backends`; `auto` takes the first that can do it here.

    Raises InputError for shapes, types and options that do not fit.
    """
    u, delta, A, B, C = given(u, delta, A, B, C)
    D, z, delta_bias, initial_state, segment_ids = given(D, z, delta_bias, initial_state, segment_ids)
    state = {"initial_state": initial_state}
    _check("selective_scan", "batch sequence", u, delta, A, B, C, D, z, delta_bias, state, segment_ids)
    asked = {
        "skip": D is not None,
        "gate": z is not None,
        "bias": delta_bias is not None,
        "softplus": delta_softplus,
        "initial state": initial_state is not None,
        "final state": return_final_state,
        "segments": segment_ids is not None,
    }
    name = implementation_of(
        *("selective_scan", IMPLEMENTATIONS, implementation),
        dtype=u.dtype.name,
        asked=asked,
        sizes={"state": A.shape[1]},
    )
    module = import_module(f"{__name__}.{name}")
    wide = jnp.promote_types(u.dtype, jnp.float32)
    real, starts = (None, None) if segment_ids is None else document_starts(segment_ids)
    u, delta, B, C = (keep_real(real, array) for array in (u, delta, B, C))
    z = None if z is None else keep_real(real, z)
    delta = keep_real(real, time_step(delta, delta_bias, delta_softplus, wide))
    if initial_state is None:
        initial_state = jnp.zeros((u.shape[0], *A.shape), wide)
    y, final_state = module.selective_scan(
        u,
        delta,
        A.astype(wide),
        B,
        C,
        D=None if D is None else D.astype(wide),
        z=z,
        initial_state=initial_state.astype(wide),
        starts=starts,
    )
    return (y, final_state) if return_final_state else y


def selective_scan_step(
    state: Float[Array, "batch channels state"],
    u: Float[Array, "batch channels"],
    delta: Float[Array, "batch channels"],
    A: Float[Array, "channels state"],
    B: Float[Array, "batch state"],
    C: Float[Array, "batch state"],
    *,
    D: Float[Array, " channels"] | None = None,
    z: Float[Array, "batch channels"] | None = None,
    delta_bias: Float[Array, " channels"] | None = None,
    delta_softplus: bool = False,
) -> tuple[Float[Array, "batch channels"], Float[Array, "batch channels state"]]:
    """One token of `selective_scan`, for decoding: its output and the state after it (float32)."""
    state, u, delta, A, B, C = given(state, u, delta, A, B, C)
    D, z, delta_bias = given(D, z, delta_bias)
    named = {"state": state}
    _check("selective_scan_step", "batch", u, delta, A, B, C, D, z, delta_bias, named, None)
    wide = jnp.promote_types(u.dtype, jnp.float32)
    delta = time_step(delta, delta_bias, delta_softplus, wide)
    D = None if D is None else D.astype(wide)
    return step.step(state.astype(wide), u, delta, A.astype(wide), B, C, D, z)


def _check(op: str, leading: str, u, delta, A, B, C, D, z, delta_bias, state, segment_ids) -> None:
    check_shapes(
        op,
        {
            "u": (u, f"{leading} channels"),
            "delta": (delta, f"{leading} channels"),
            "A": (A, "channels state"),
            "B": (B, f"{leading} state"),
            "C": (C, f"{leading} state"),
            "D": (D, "channels"),
            "z": (z, f"{leading} channels"),
            "delta_bias": (delta_bias, "channels"),
            **{name: (array, "batch channels state") for name, array in state.items()},
            "segment_ids": (segment_ids, "batch sequence"),
        },
    )
    check_dtypes(
        op,
        same={"u": u, "B": B, "C": C, "z": z},
        floating={"delta": delta, "A": A, "D": D, "delta_bias": delta_bias, **state},
        integer={"segment_ids": segment_ids},
    )
