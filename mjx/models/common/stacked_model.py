"""A model around stacks of sub-layers: what it runs them with, and what they say of a batch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mjx.models.common.context import Context
from mjx.models.common.stack import Caches, Run, Stack
from mjx.models.common.stacked_config import StackedConfig
from mjx.models.family import Metrics
from mjx.trees import Tree


class StackedModel(nnx.Module):
    """The base of models that hold a stack in the attribute that `config.stack_name` names."""

    config: StackedConfig

    @property
    def stacks(self) -> Mapping[str, Stack]:
        """By name, in the order in which they run."""
        return {name: getattr(self, name) for name in self.config.patterns}

    @property
    def stack(self) -> Stack:
        """The one in front of the head."""
        return getattr(self, self.config.stack_name)

    def run(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        caches: Caches | None = None,
        so_far: Tree | None = None,
    ) -> Run:
        """The stack; `so_far` are the model's statistics of the batch's earlier parts."""
        return run_stack(self.stack, self.config.stack_name, x, context, caches, so_far)

    def after_step(self, parameters: Tree, statistics: Tree) -> Tree:
        """The parameters after what the mixers do to them by the batch's statistics."""
        changed = {
            name: stack.after_step(parameters[name], statistics[name])
            for name, stack in self.stacks.items()
            if name in statistics
        }
        return {**parameters, **changed} if changed else parameters

    def summary(self, statistics: Tree) -> Metrics:
        """What the mixers make of the batch's statistics."""
        stacks = ((stack, statistics[name]) for name, stack in self.stacks.items() if name in statistics)
        return {name: value for stack, said in stacks for name, value in stack.summary(said).items()}

    def scores(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Nothing: losses say all."""
        return {}

    def _stack(self, config: StackedConfig, rngs: nnx.Rngs) -> None:
        """Make the stack of this config."""
        stack = Stack(
            config.pattern,
            config.hidden_size,
            remat=config.remat,
            std=config.init_std,
            output_std=config.output_std,
            rngs=rngs,
        )
        setattr(self, config.stack_name, stack)


def run_stack(
    stack: Stack,
    name: str,
    x: Float[Array, "batch residual_sequence embed"],
    context: Context,
    caches: Caches | None = None,
    so_far: Any = None,
) -> Run:
    """A model's stack of this name; statistics are the model's, of which `so_far` are those until now."""
    run = stack(x, context, caches, (so_far or {}).get(name))
    return run._replace(statistics={name: run.statistics} if run.statistics else {})
