"""What happens when the loss or the gradient is not a finite number."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from mjx.kernels.capability import current_device

NonFinitePolicy = Literal["stop", "skip"]
"""`stop`: training ends with an error. `skip`: the update is left out, counted, and training goes on.
Under both, a non-finite update never reaches the parameters."""


class NonFiniteError(FloatingPointError):
    """The loss or the gradient norm of a step is not finite. Parameters are still those before the step."""


def update_if(
    finite: Bool[Array, ""],
    update: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    params: PyTree,
    state: PyTree,
) -> tuple[PyTree, PyTree]:
    """The parameters and optimizer state after `update`, or both unchanged where `finite` is false.

    A select on GPUs, where it is part of the update's own kernels; a conditional would put the new state
    beside the old one (three times the parameters for AdamW, seen in compiled steps). On CPUs it is the other
    way round: a select copies the old moments, at 3 times the time of the update.
    """
    platform, _ = current_device()
    choose = update_by_conditional if platform == "cpu" else update_by_select
    return choose(finite, update, params, state)


def update_by_conditional(finite, update, params, state):
    """`update_if`: one of two branches runs."""
    return jax.lax.cond(finite, update, lambda params, state: (params, state), params, state)


def update_by_select(finite, update, params, state):
    """`update_if`: the update is made, and each element taken or left."""
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), update(params, state), (params, state))


def check_finite(step: int, metrics: Mapping[str, float], policy: NonFinitePolicy) -> None:
    """Look at one step's metrics on the host.

    Raises:
        NonFiniteError: `policy` is `stop` and the loss or the gradient norm is not finite.
    """
    if policy == "skip":
        return
    values = {name: metrics[name] for name in ("loss", "grad_norm") if name in metrics}
    if not all(math.isfinite(value) for value in values.values()):
        shown = ", ".join(f"{name} = {value}" for name, value in values.items())
        raise NonFiniteError(
            f"Step {step} is not finite: {shown}. Its update was not applied. Lower the learning rate or "
            "lengthen the warm-up, look at the data of this step, or set optimizer.non_finite=skip to leave "
            "such steps out"
        )
