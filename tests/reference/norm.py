"""LayerNorm (Ba et al. 2016) and RMSNorm (Zhang and Sennrich 2019)."""

import numpy as np


def norm(config, p: dict[str, np.ndarray], x: np.ndarray, axes: int | tuple[int, ...] = -1) -> np.ndarray:
    """`p` has `scale`, and `bias` for a layernorm; `axes` are normalised as one."""
    x = x.astype(np.float64)
    if config.kind == "layernorm":
        x = x - x.mean(axes, keepdims=True)
    x = x / np.sqrt((x**2).mean(axes, keepdims=True) + config.epsilon)
    gain = p["scale"].astype(np.float64) + (1 if config.zero_centered else 0)
    return x * gain + (p["bias"] if config.kind == "layernorm" else 0)
