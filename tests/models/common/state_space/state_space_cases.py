"""Tiny state-space sub-layers with their options, and what the reference makes of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from reference.state_space import selective_scan_mixer, ssd_mixer

from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import bind, parameters_of
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig, TimeStepConfig
from mjx.trees import flatten, unflatten

EMBED, BATCH, SEQUENCE = 12, 2, 11
X = np.random.RandomState(0).randn(BATCH, SEQUENCE, EMBED).astype(np.float32)
SEGMENTS = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 3, 0, 0], [1] * SEQUENCE], np.int32)
LIMIT = (0.05, 0.6)


class Case(NamedTuple):
    """Options of a sub-layer, and of the reference."""

    options: dict[str, Any]
    reference: Mapping[str, Any] = MappingProxyType({})


SMALL: dict[str, Any] = {"state": 5, "head_dim": 3, "heads": 4, "groups": 2, "chunk_size": 4}
SSD = {
    "several groups": Case({}, {"groups": 2}),
    "one group": Case({"groups": 1}, {"groups": 1}),
    "biases": Case({"bias": True, "conv_bias": False, "conv_width": 2}, {"groups": 2}),
    "norm before the gate, of all features": Case(
        {"norm": "before gate", "norm_groups": 1, "norm_epsilon": 1e-2},
        {"norm": "before gate", "groups": 1, "epsilon": 1e-2},
    ),
    "no norm, D of each feature": Case({"norm": "none", "skip": "feature"}, {"norm": "none"}),
    "bounded steps, GELU": Case(
        {"dt": TimeStepConfig(limit=LIMIT), "activation": "gelu"},
        {"limit": LIMIT, "activation": "gelu", "groups": 2},
    ),
}
SCAN = {
    "plain": Case({}),
    "biases": Case({"bias": True, "conv_bias": False, "conv_width": 3}),
    "normed": Case(
        {"inner_norm": NormConfig(kind="rmsnorm", epsilon=1e-3)}, {"inner_norm": True, "epsilon": 1e-3}
    ),
    "normed without gains": Case(
        {"inner_norm": NormConfig(kind="rmsnorm"), "inner_norm_gain": False}, {"inner_norm": True}
    ),
    "bounded steps, GELU": Case(
        {"dt": TimeStepConfig(limit=LIMIT), "activation": "gelu"}, {"limit": LIMIT, "activation": "gelu"}
    ),
}
KINDS = {
    "ssd": (SSD, lambda **options: SSDConfig(**SMALL | options), ssd_mixer),
    "selective_scan": (
        SCAN,
        lambda **options: SelectiveScanConfig(state=5, inner=8, dt_rank=3, **options),
        selective_scan_mixer,
    ),
}
ALL = [(kind, name) for kind, (cases, *_) in KINDS.items() for name in cases]


def config_of(kind: str, name: str) -> Any:
    cases, make, _ = KINDS[kind]
    return make(**cases[name].options).resolve(EMBED)


def expected(kind: str, name: str, values: dict[str, np.ndarray], segment_ids: Any = None) -> np.ndarray:
    """What the reference makes of `X`."""
    cases, _, reference = KINDS[kind]
    return reference(values, X, segment_ids=segment_ids, **cases[name].reference)


def filled(config: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """The layer with random parameters, biases and gains too, and the parameters."""
    layer = config.build(EMBED, std=0.02, output_std=0.02, rngs=nnx.Rngs(params=jax.random.key(0)))
    random = np.random.RandomState(1)
    values = {
        path: (0.4 * random.randn(*leaf.shape)).astype(np.float32)
        for path, leaf in flatten(parameters_of(layer)).items()
    }
    return bind(layer, unflatten(values)), values
