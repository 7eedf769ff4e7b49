"""How fast the devices could be: the denominator of model FLOP utilisation."""

import functools
import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from mjx.gpus.data_sheet import peaks

Precision = Literal["float32", "bfloat16", "float16", "float8"]


def peak_flops(devices: Sequence[Any] | None = None, precision: Precision = "bfloat16") -> float | None:
    """FLOP/s that the devices together can do in matrix products, or None where it is not known.

    GPUs are looked up in their data sheets. CPUs are measured, by a fifth of a second of matrix products,
    once a process; all CPU devices of one process are one machine, however many JAX was told to show.
    """
    devices = jax.devices() if devices is None else devices
    total = 0.0
    for device in devices:
        if device.platform != "cpu":
            peak = gpu_peak_flops(device.device_kind, precision)
            if peak is None:
                return None
            total += peak
    hosts = {device.process_index for device in devices if device.platform == "cpu"}
    return total + (len(hosts) * measure_cpu_flops(precision) if hosts else 0.0)


def gpu_peak_flops(name: str, precision: Precision) -> float | None:
    """FLOP/s of one GPU by the name its driver gives it; None for an unknown one."""
    known = peaks(name)
    if known is None:
        return None
    tensor = known.tensor_flops
    return {
        "float32": known.tf32_flops,
        "bfloat16": tensor,
        "float16": tensor,
        "float8": known.float8_flops,
    }[precision]


@functools.cache
def measure_cpu_flops(precision: Precision = "float32", seconds: float = 0.2) -> float:
    """The best rate of a 1024³ matrix product on this machine's cores within about `seconds`, in FLOP/s."""
    size = 1024
    with jax.transfer_guard("allow"):
        device = jax.local_devices(backend="cpu")[0]
        dtype = jnp.bfloat16 if precision == "float8" else jnp.dtype(precision)
        x = jax.device_put(jnp.ones((size, size), dtype), device)
        product = jax.jit(jnp.matmul).lower(x, x).compile()
        best, deadline = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < deadline or best == float("inf"):
            start = time.perf_counter()
            product(x, x).block_until_ready()
            best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
