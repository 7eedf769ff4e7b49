"""Sub-layers of a state space, from their parameters by path: convolution, recurrence, gate, norm."""

import numpy as np

from reference.mlp import ACTIVATIONS
from reference.recurrences import causal_conv1d, selective_scan, silu
from reference.recurrences import ssd as recurrence


def _linear(parameters: dict, name: str, x: np.ndarray, contracted: int = 1) -> np.ndarray:
    y = np.tensordot(x, parameters[f"{name}.kernel"].astype(float), contracted)
    return y + parameters.get(f"{name}.bias", 0)


def _convolved(parameters: dict, name: str, x: np.ndarray, activation: str, segment_ids) -> np.ndarray:
    kernel, bias = parameters[f"{name}_conv.kernel"], parameters.get(f"{name}_conv.bias")
    flat = x.reshape(*x.shape[:2], -1)
    bias = None if bias is None else bias.reshape(-1)
    y, _ = causal_conv1d(flat, kernel.reshape(flat.shape[2], -1), bias, segment_ids=segment_ids)
    real = 1 if segment_ids is None else (segment_ids > 0)[..., None]
    return (real * ACTIVATIONS[activation](y)).reshape(x.shape)


def _steps(dt: np.ndarray, bias: np.ndarray, limit) -> np.ndarray:
    steps = np.log1p(np.exp(dt + bias))
    return steps if limit is None else np.clip(steps, *limit)


def _rms(x: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + epsilon)


def ssd_mixer(
    parameters,
    x,
    *,
    activation="silu",
    limit=None,
    norm="behind gate",
    groups=1,
    epsilon=1e-5,
    segment_ids=None,
):
    """`groups` are those of the norm."""
    gate, value, B, C, dt = (_linear(parameters, name, x) for name in ("gate", "value", "B", "C", "dt"))
    value, B, C = (
        _convolved(parameters, name, part, activation, segment_ids)
        for name, part in (("value", value), ("B", B), ("C", C))
    )
    steps = _steps(dt, parameters["dt_bias"], limit)
    A = -np.exp(parameters["A_log"].astype(float))
    y, _ = recurrence(value, steps, A, B, C, D=parameters["D"], segment_ids=segment_ids)
    y = y if norm == "before gate" else y * silu(gate)
    if norm != "none":
        y = _rms(y.reshape(*y.shape[:2], groups, -1), epsilon).reshape(y.shape) * parameters["norm_scale"]
    y = y * silu(gate) if norm == "before gate" else y
    return _linear(parameters, "output", y, 2)


def selective_scan_mixer(
    parameters, x, *, activation="silu", limit=None, inner_norm=False, epsilon=1e-5, segment_ids=None
):
    gate, value = (_linear(parameters, name, x) for name in ("gate", "value"))
    u = _convolved(parameters, "value", value, activation, segment_ids)
    read = [_linear(parameters, name, u) for name in ("steps", "B", "C")]
    if inner_norm:
        names = ("steps", "B", "C")
        read = [
            _rms(part, epsilon) * parameters.get(f"{name}_norm.scale", 1)
            for name, part in zip(names, read, strict=True)
        ]
    steps, B, C = read
    steps = _steps(steps @ parameters["dt"].astype(float), parameters["dt_bias"], limit)
    A = -np.exp(parameters["A_log"].astype(float))
    y, _ = selective_scan(u, steps, A, B, C, D=parameters["D"], segment_ids=segment_ids)
    return _linear(parameters, "output", y * silu(gate))
