"""State-space duality (Dao and Gu 2024): the scan of a selective state space with one decay per head."""

from importlib import import_module
from typing import Any, Literal, overload

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx.errors import InputError
from mjx.kernels.arguments import check_dtypes, check_shapes, time_step
from mjx.kernels.call import given, implementation_of
from mjx.kernels.documents import document_starts, keep_real
from mjx.kernels.ssd import step
from mjx.kernels.ssd.implementations import IMPLEMENTATIONS


@overload
def ssd(*arrays: Any, return_final_state: Literal[False] = False, **options: Any) -> Array: ...
@overload
def ssd(*arrays: Any, return_final_state: Literal[True], **options: Any) -> tuple[Array, Array]: ...
def ssd(
    x: Float[Array, "batch sequence heads head_dim"],
    dt: Float[Array, "batch sequence heads"],
    A: Float[Array, " heads"],
    B: Float[Array, "batch sequence groups state"],
    C: Float[Array, "batch sequence groups state"],
    *,
    D: Float[Array, " heads"] | Float[Array, "heads head_dim"] | None = None,
    z: Float[Array, "batch sequence heads head_dim"] | None = None,
    dt_bias: Float[Array, " heads"] | None = None,
    dt_softplus: bool = False,
    chunk_size: int = 64,
    initial_state: Float[Array, "batch heads head_dim state"] | None = None,
    return_final_state: bool = False,
    segment_ids: Int[Array, "batch sequence"] | None = None,
    implementation: str = "auto",
) -> (
    Float[Array, "batch sequence heads head_dim"]
    | tuple[Float[Array, "batch sequence heads head_dim"], Float[Array, "batch heads head_dim state"]]
):
    """hₜ = exp(dtₜ A) hₜ₋₁ + dtₜ xₜ Bₜᵀ and yₜ = (hₜ Cₜ + D xₜ) silu(zₜ), for each head.

    A is negative. dt becomes softplus(dt + dt_bias), where these are asked for. Head h uses group
    h // (heads / groups) of B and C. Decays and states are float32, the output has the type of x, and
    the final state is float32. `chunk_size` changes speed and memory, not the result;
    GPU kernels have chunks of their own.

    Where the segment id changes the state begins at zero, so that packed documents equal separate ones;
    the initial state is the past of the first. Segment 0 is padding: its output is zero, whatever stands
    there, and the state passes it unchanged, so that the final state is that after the last real token.

    `implementation` is one of `mjx backends`; `auto` takes the first that can do it here.

    Raises InputError for shapes, types and options that do not fit.
    """
    x, dt, A, B, C = given(x, dt, A, B, C)
    D, z, dt_bias, initial_state, segment_ids = given(D, z, dt_bias, initial_state, segment_ids)
    state = {"initial_state": initial_state}
    _check("ssd", "batch sequence", x, dt, A, B, C, D, z, dt_bias, state, segment_ids)
    asked = {
        "groups": B.shape[2] != x.shape[2],
        "skip": D is not None,
        "skip per channel": D is not None and D.ndim == 2,
        "gate": z is not None,
        "bias": dt_bias is not None,
        "softplus": dt_softplus,
        "initial state": initial_state is not None,
        "final state": return_final_state,
        "segments": segment_ids is not None,
    }
    name = implementation_of(
        *("ssd", IMPLEMENTATIONS, implementation),
        dtype=x.dtype.name,
        asked=asked,
        sizes={"head_dim": x.shape[3], "state": B.shape[3]},
    )
    module = import_module(f"{__name__}.{name}")
    if chunk_size < 1:
        raise InputError(f"ssd: chunk_size = {chunk_size} has to be at least 1, such as 64")
    wide = jnp.promote_types(x.dtype, jnp.float32)
    real, starts = (None, None) if segment_ids is None else document_starts(segment_ids)
    x, dt, B, C = (keep_real(real, array) for array in (x, dt, B, C))
    z = None if z is None else keep_real(real, z)
    dt = keep_real(real, time_step(dt, dt_bias, dt_softplus, wide))
    if initial_state is None:
        initial_state = jnp.zeros((x.shape[0], *x.shape[2:], B.shape[-1]), wide)
    y, final_state = module.ssd(
        x,
        dt,
        A.astype(wide),
        B,
        C,
        D=_skip(D, wide),
        z=z,
        initial_state=initial_state.astype(wide),
        starts=starts,
        chunk_size=chunk_size,
    )
    return (y, final_state) if return_final_state else y


def ssd_step(
    state: Float[Array, "batch heads head_dim state"],
    x: Float[Array, "batch heads head_dim"],
    dt: Float[Array, "batch heads"],
    A: Float[Array, " heads"],
    B: Float[Array, "batch groups state"],
    C: Float[Array, "batch groups state"],
    *,
    D: Float[Array, " heads"] | Float[Array, "heads head_dim"] | None = None,
    z: Float[Array, "batch heads head_dim"] | None = None,
    dt_bias: Float[Array, " heads"] | None = None,
    dt_softplus: bool = False,
) -> tuple[Float[Array, "batch heads head_dim"], Float[Array, "batch heads head_dim state"]]:
    """One token of `ssd`, for decoding: its output and the state after it (float32)."""
    state, x, dt, A, B, C = given(state, x, dt, A, B, C)
    D, z, dt_bias = given(D, z, dt_bias)
    _check("ssd_step", "batch", x, dt, A, B, C, D, z, dt_bias, {"state": state}, None)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    dt = time_step(dt, dt_bias, dt_softplus, wide)
    return step.step(state.astype(wide), x, dt, A.astype(wide), B, C, _skip(D, wide), z)


def _skip(D: Array | None, dtype) -> Float[Array, "heads #head_dim"] | None:
    return None if D is None else (D[:, None] if D.ndim == 1 else D).astype(dtype)


def _check(op: str, leading: str, x, dt, A, B, C, D, z, dt_bias, state, segment_ids) -> None:
    sizes = check_shapes(
        op,
        {
            "x": (x, f"{leading} heads head_dim"),
            "dt": (dt, f"{leading} heads"),
            "A": (A, "heads"),
            "B": (B, f"{leading} groups state"),
            "C": (C, f"{leading} groups state"),
            "D": (D, "heads head_dim" if D is not None and D.ndim == 2 else "heads"),
            "z": (z, f"{leading} heads head_dim"),
            "dt_bias": (dt_bias, "heads"),
            **{name: (array, "batch heads head_dim state") for name, array in state.items()},
            "segment_ids": (segment_ids, "batch sequence"),
        },
    )
    if sizes["heads"] % sizes["groups"]:
        raise InputError(
            f"{op}: {sizes['groups']} groups of B {B.shape} do not divide "
            f"{sizes['heads']} heads of x {x.shape}"
        )
    check_dtypes(
        op,
        same={"x": x, "B": B, "C": C, "z": z},
        floating={"dt": dt, "A": A, "D": D, "dt_bias": dt_bias, **state},
        integer={"segment_ids": segment_ids},
    )
