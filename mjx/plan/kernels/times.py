"""How long the implementations of an op take on this machine."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mjx.kernels.workload import Workload

WARM_UP = 3
"""Calls before the first that counts: the clock and the caches settle."""
LEAST_SECONDS = 0.05
"""Of a round: as many calls as take so long, so that the time to start one does not count."""


@dataclasses.dataclass(frozen=True)
class Times:
    """Median seconds of a call."""

    forward: float
    backward: float
    """The backward pass alone: both passes together, less the forward pass."""


def measure(
    workload: Workload, implementations: Mapping[str, tuple[str, Any]], rounds: int
) -> dict[str, Times]:
    """Name → times. `implementations`: name → implementation and block configuration (None: its own choice).

    They take turns within a round, so that what disturbs the machine meets all of them.
    """
    random = np.random.default_rng(0)
    arrays = {
        name: jax.device_put(jnp.asarray(random.standard_normal(x.shape, np.float32), x.dtype))
        for name, x in workload.arguments().items()
    }
    calls: dict[tuple[str, bool], tuple[Callable[[], Any], int]] = {}
    for name, (implementation, config) in implementations.items():
        for backward in (False, True):
            call = _call(workload.function(implementation, config), arrays, backward)
            calls[name, backward] = (call, _repeats(call))
    seconds: dict[tuple[str, bool], list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, (call, repeats) in calls.items():
            seconds[key].append(_time(call, repeats))
    medians = {key: statistics.median(found) for key, found in seconds.items()}
    return {
        name: Times(medians[name, False], max(medians[name, True] - medians[name, False], 0.0))
        for name in implementations
    }


def _call(function: Callable[..., Any], arrays: dict[str, Any], backward: bool) -> Callable[[], Any]:
    """The compiled forward pass, or both passes with all gradients."""

    def both(arrays, d_out):
        out, pull = jax.vjp(lambda arrays: function(**arrays), arrays)
        return out, pull(d_out)

    if not backward:
        compiled = jax.jit(lambda arrays: function(**arrays)).lower(arrays).compile()
        return lambda: compiled(arrays)
    shape = jax.eval_shape(lambda arrays: function(**arrays), arrays)
    d_out = jnp.ones(shape.shape, shape.dtype)
    compiled = jax.jit(both).lower(arrays, d_out).compile()
    return lambda: compiled(arrays, d_out)


def _repeats(call: Callable[[], Any]) -> int:
    for _ in range(WARM_UP):
        jax.block_until_ready(call())
    return max(1, round(LEAST_SECONDS / _time(call, 1)))


def _time(call: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats - 1):
        call()
    jax.block_until_ready(call())
    return (time.perf_counter() - start) / repeats
