"""Routers whose logits are what they read: so that ties are ties."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mjx.models.common.context import Context
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig, RouterConfig
from mjx.models.common.moe.router import Router
from mjx.models.common.parameter import bind
from mjx.trees import Tree

ROWS, SEQUENCE = 2, 7
MASK = np.ones((ROWS, SEQUENCE), np.float32)
MASK[0, 4:] = MASK[1, 1:3] = 0
"""Of tokens that count."""


def config_of(
    experts: int = 8, top_k: int = 2, *, router: dict[str, Any] | None = None, **options
) -> MoEConfig:
    router = {"normalized": top_k > 1, **(router or {})}
    return MoEConfig(
        experts=experts, top_k=top_k, mlp=MLPConfig(features=4), router=RouterConfig(**router), **options
    )


def parameters(config: MoEConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """The kernel passes on what it reads; biases are random."""
    draw, found = np.random.RandomState(seed), {"kernel": np.eye(config.experts, dtype=np.float32)}
    if config.router.bias:
        found["bias"] = draw.randn(config.experts).astype(np.float32)
    if config.router.expert_bias_rate is not None:
        found["expert_bias"] = (0.3 * draw.randn(config.experts)).astype(np.float32)
    return found


def logits_of(config: MoEConfig, *, ties: bool = False, seed: int = 1) -> np.ndarray:
    """What a router reads: any numbers, or some of 0, 1 and 2."""
    draw, shape = np.random.RandomState(seed), (ROWS, SEQUENCE, config.experts)
    return (draw.randint(0, 3, shape) if ties else 1.5 * draw.randn(*shape)).astype(np.float32)


@functools.cache
def _abstract(config: MoEConfig) -> Router:
    return nnx.eval_shape(
        lambda: Router(config, config.experts, std=1.0, rngs=nnx.Rngs(params=jax.random.key(0)))
    )


def router_of(config: MoEConfig, arrays: Tree) -> Router:
    return bind(_abstract(config), jax.tree.map(jnp.asarray, arrays))


def context(**fields) -> Context:
    """That of a training step, in which all tokens of the mask count."""
    return Context(**{"counted": jnp.asarray(MASK), "training": True, **fields})
