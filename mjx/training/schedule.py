"""The learning rate as a function of the step, in Megatron-Core's formulae."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx.errors import InputError

Schedule = Callable[[Int[Array, ""] | int], Float[Array, ""]]
"""Updates already applied → learning rate of the next one. May be called inside `jax.jit`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """A linear warm-up, then a decay."""

    kind: Literal["constant", "linear", "cosine", "inverse-sqrt", "wsd"] = "cosine"
    """How the rate falls after the warm-up. `wsd` is warm-up, stable, decay (Hu et al. 2024)."""
    learning_rate: float = 3e-4
    """The peak, reached after `warmup_steps`."""
    min_learning_rate: float = 0.0
    """The rate at `decay_steps` and after it; a floor for `inverse-sqrt`; unused by `constant`."""
    warmup_steps: int = 0
    """Steps of the linear rise from zero. The very first update then has learning rate 0, as in Megatron."""
    decay_steps: int | None = None
    """The step, counted from the start of training, at which the decay ends. Unset: the end of training."""
    wsd_decay_steps: int | None = None
    """`wsd` only: how many steps before `decay_steps` the decay begins."""
    wsd_decay: Literal["exponential", "minus-sqrt", "linear", "cosine"] = "exponential"
    """`wsd` only: the shape of that decay."""

    def __post_init__(self):
        for name in ("learning_rate", "min_learning_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(
                    f"{name} = {value} is not a learning rate (choose a finite number, 0 or more)"
                )
        if self.min_learning_rate > self.learning_rate:
            raise InputError(
                f"min_learning_rate = {self.min_learning_rate} is above the peak, "
                f"learning_rate = {self.learning_rate}"
            )
        if self.warmup_steps < 0:
            raise InputError(f"warmup_steps = {self.warmup_steps} is negative (0 means no warm-up)")
        if self.decay_steps is not None and self.decay_steps <= 0:
            raise InputError(f"decay_steps = {self.decay_steps} must be 1 or more (unset: all of training)")
        if self.kind == "wsd" and self.wsd_decay_steps is None:
            raise InputError("kind = wsd needs wsd_decay_steps, the length of the final decay in steps")
        if self.kind != "wsd" and self.wsd_decay_steps is not None:
            raise InputError(
                f"wsd_decay_steps = {self.wsd_decay_steps} has no meaning with kind = {self.kind} "
                "(use kind = wsd, or leave it unset)"
            )
        if self.wsd_decay_steps is not None and self.wsd_decay_steps <= 0:
            raise InputError(f"wsd_decay_steps = {self.wsd_decay_steps} must be 1 or more")


def build_schedule(config: ScheduleConfig, total_steps: int) -> Schedule:
    """The learning rate as a function of the number of updates already applied.

    Equal to Megatron-Core's `OptimizerParamScheduler` with `init_lr = 0`, to float32 rounding.

    Raises:
        InputError: the warm-up and the decay do not fit into `decay_steps`.
    """
    end = total_steps if config.decay_steps is None else config.decay_steps
    end_name = "the length of training" if config.decay_steps is None else "decay_steps"
    warmup, peak, floor = config.warmup_steps, config.learning_rate, config.min_learning_rate
    if config.kind != "constant" and warmup >= end:
        raise InputError(f"schedule.warmup_steps = {warmup} must be smaller than {end_name} = {end}")
    wsd_steps = config.wsd_decay_steps or 0
    if warmup + wsd_steps > end:
        raise InputError(
            f"schedule.warmup_steps = {warmup} and wsd_decay_steps = {wsd_steps} do not fit into "
            f"{end_name} = {end}"
        )

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        if config.kind == "constant":
            rate = jnp.full((), peak, jnp.float32)
        elif config.kind == "inverse-sqrt":
            rate = jnp.maximum(floor, peak * jnp.sqrt(max(warmup, 1) / jnp.maximum(step, 1.0)))
        elif config.kind == "wsd":
            done = jnp.clip((step - (end - wsd_steps)) / wsd_steps, 0.0, 1.0)
            rate = floor + (peak - floor) * _remaining(config.wsd_decay, done)
        else:
            done = jnp.clip((step - warmup) / (end - warmup), 0.0, 1.0)
            rate = floor + (peak - floor) * _remaining(config.kind, done)
        if config.kind != "constant":
            rate = jnp.where(step > end, floor, rate)
        if warmup:
            rate = jnp.where(step <= warmup, peak * step / warmup, rate)
        return rate

    return schedule


def _remaining(shape: str, done: Float[Array, ""]) -> Float[Array, ""]:
    """The share of the fall that is still to come, from 1 to 0 while `done` goes from 0 to 1."""
    if shape == "linear":
        return 1.0 - done
    if shape == "cosine":
        return jnp.square(jnp.cos(0.5 * jnp.pi * done))  # = (1 + cos(pi done)) / 2 without its cancellation
    if shape == "minus-sqrt":
        return 1.0 - jnp.sqrt(done)
    return 2.0 * jnp.exp2(-done) - 1.0
