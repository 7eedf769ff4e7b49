"""What happens when the loss or the gradient is not a finite number."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from mjx.kernels.capability import current_device

NonFinitePolicy = Literal["stop", "skip"]
"""`stop`: training ends with an error. `skip`: the update is left out, counted, and training goes on, unless
too many in a row are. Under both, a non-finite update never reaches the parameters."""


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


class FiniteWatch:
    """Looks at the metrics of every step, on the host and in order."""

    def __init__(self, policy: NonFinitePolicy, skip_limit: int):
        self._policy, self._limit = policy, skip_limit
        self.skipped = 0
        """The updates in a row that were left out, up to the last step."""

    def look(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raise `NonFiniteError` for a step that is not finite, where the policy does not skip it, or has
        skipped too many before it."""
        values = {name: metrics[name] for name in ("loss", "grad_norm") if name in metrics}
        finite = all(math.isfinite(value) for value in values.values())
        self.skipped = 0 if finite else self.skipped + 1
        if finite or (self._policy == "skip" and self.skipped < self._limit):
            return
        shown = ", ".join(f"{name} = {value}" for name, value in values.items())
        if self._policy == "skip":
            raise NonFiniteError(
                f"Step {step} is not finite: {shown}. It is the last of {self.skipped} in a row whose "
                "updates were skipped (optimizer.skip_limit): the parameters are likely ruined. Lower the "
                "learning rate or lengthen the warm-up; where a restart skips all steps too, remove the "
                "newest checkpoint"
            )
        raise NonFiniteError(
            f"Step {step} is not finite: {shown}. Its update was not applied. Lower the learning rate or "
            "lengthen the warm-up, look at the data of this step, or set optimizer.non_finite=skip to leave "
            "such steps out"
        )
