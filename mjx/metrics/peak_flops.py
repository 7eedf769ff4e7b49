"""How fast the devices could be: the denominator of model FLOP utilisation."""

import functools
import re
import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

Precision = Literal["float32", "bfloat16", "float16", "float8"]

# Dense tensor-core TFLOP/s with float32 accumulation, without sparsity, at boost clock, from the vendors'
# data sheets: (float32 through TF32, which is what JAX multiplies float32 by there; bfloat16 and float16;
# float8). None: the device has no such unit. The first pattern found in the device's name counts.
_GPU_TFLOPS: tuple[tuple[str, tuple[float | None, float | None, float | None]], ...] = (
    (r"GB300", (1250, 2500, 5000)),  # NVIDIA GB300 NVL72 data sheet, per GPU
    (r"B300", (1125, 2250, 4500)),  # NVIDIA HGX B300 data sheet, per GPU
    (r"GB200", (1250, 2500, 5000)),  # NVIDIA GB200 NVL72 data sheet, per GPU
    (r"B200", (1125, 2250, 4500)),  # NVIDIA HGX B200 data sheet, per GPU
    (r"GH200", (494.7, 989.4, 1978.9)),  # NVIDIA GH200 data sheet
    (r"H200 NVL", (417.5, 835.5, 1670.5)),  # NVIDIA H200 data sheet
    (r"H200", (494.7, 989.4, 1978.9)),
    (r"H100 NVL", (417.5, 835.5, 1670.5)),  # NVIDIA H100 data sheet
    (r"H100 PCIe", (378, 756, 1513)),
    (r"H100", (494.7, 989.4, 1978.9)),  # SXM: "NVIDIA H100 80GB HBM3"
    (r"H800", (494.7, 989.4, 1978.9)),
    (r"A100|A800", (156, 312, None)),  # NVIDIA A100 data sheet
    (r"L40S", (183, 362, 733)),  # NVIDIA L40S data sheet
    (r"L40", (90.5, 181, 362)),  # NVIDIA L40 data sheet
    (r"L4\b", (60, 121, 242)),  # NVIDIA L4 data sheet
    (r"A40\b", (74.8, 149.7, None)),  # NVIDIA A40 data sheet
    (r"RTX A6000", (77.4, 154.8, None)),  # NVIDIA Ampere GA102 white paper
    (r"A30\b", (82, 165, None)),  # NVIDIA A30 data sheet
    (r"A10\b", (62.5, 125, None)),  # NVIDIA A10 data sheet
    (r"RTX 5090", (104.8, 209.5, 419)),  # NVIDIA RTX Blackwell white paper
    (r"RTX 4090", (82.6, 165.2, 330.3)),  # NVIDIA Ada white paper
    (r"RTX 3090 Ti", (40, 80, None)),  # NVIDIA Ampere GA102 white paper
    (r"RTX 3090", (35.6, 71, None)),
    (r"MI355X", (None, 2516.6, 5033.2)),  # AMD CDNA 4 data sheets
    (r"MI300X|MI325X", (653.7, 1307.4, 2614.9)),  # AMD CDNA 3 data sheets
)


def peak_flops(devices: Sequence[Any] | None = None, precision: Precision = "bfloat16") -> float | None:
    """FLOP/s that the devices together can do in matrix products, or None where it is not known.

    GPUs are looked up in a table. CPUs are measured, by a fifth of a second of matrix products, once a
    process; all CPU devices of one process are one machine, however many JAX was told to show.
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
    column = {"float32": 0, "bfloat16": 1, "float16": 1, "float8": 2}[precision]
    for pattern, tflops in _GPU_TFLOPS:
        if re.search(rf"\b(?:{pattern})", name, re.IGNORECASE):
            value = tflops[column]
            return None if value is None else value * 1e12
    return None


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
