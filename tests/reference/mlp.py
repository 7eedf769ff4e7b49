"""The feed-forward sub-layer (Shazeer 2020), and what stands in it."""

import math

import numpy as np

from reference.linear import Parameters, linear


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "gelu-tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * sigmoid(x),
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "quick-gelu": lambda x: x * sigmoid(1.702 * x),
}


def mlp(config, p: Parameters, x: np.ndarray) -> np.ndarray:
    activation, limit = ACTIVATIONS[config.activation], config.clamp or np.inf
    h = np.clip(linear(p, "up", "bse,em->bsm", x), -limit, limit)
    if config.gated:
        gate = np.minimum(linear(p, "gate", "bse,em->bsm", x), limit)
        h = activation(gate) * (h + config.linear_offset)
    else:
        h = activation(h)
    return linear(p, "down", "bsm,me->bse", h)
