"""One case through mjx: outputs, losses and gradients, of one program."""

import functools
from typing import Any

import jax
import numpy as np

from mjx.models.common.parameter import Tree, bind
from mjx.models.family import Batch, abstract_model
from oracles.difference import Difference, Limits, loss_difference, output_difference
from oracles.families import Family

Computed = dict[str, np.ndarray]


class UnsupportedError(Exception):
    """The case is of something that mjx does not have yet; the sentence says of what."""


@functools.cache
def _program(family: Family, config: Any, gradients: bool):
    """Compiled once for all cases of one config and one shape, which differ in their numbers only."""
    model = abstract_model(config)

    def compute(parameters: Tree, batch: Batch):
        computed = family.compute(bind(model, parameters), batch)
        return (computed["loss"] if gradients else None), computed

    return jax.jit(jax.value_and_grad(compute, has_aux=True) if gradients else compute)


def run(
    family: Family, config: Any, parameters: Tree, batch: Batch, *, gradients: bool
) -> tuple[Computed, Tree | None]:
    """What mjx computes, under the library's names, and with `gradients` those of the loss."""
    if gradients:
        (_, computed), tree = _program(family, config, True)(parameters, batch)
        return jax.tree.map(np.asarray, (computed, tree))
    _, computed = _program(family, config, False)(parameters, batch)
    return jax.tree.map(np.asarray, computed), None


def check_names(family: Family, inputs: Computed) -> None:
    """Raise `UnsupportedError` if the row does not take these inputs, or lacks one of them."""
    unknown = [name for name in inputs if name not in family.inputs]
    missing = [name for name in family.needed if name not in inputs]
    if unknown or missing:
        parts = [
            f"{what} {', '.join(names)}"
            for what, names in (("it has the inputs", unknown), ("it lacks the inputs", missing))
            if names
        ]
        raise UnsupportedError(f"{' and '.join(parts)}; known are {', '.join(family.inputs)}")


def compare_outputs(
    family: Family, inputs: Computed, outputs: Computed, computed: Computed, limits: Limits
) -> tuple[list[Difference], list[Difference]]:
    """All outputs of a case, and all its losses.

    Raises:
        UnsupportedError: it has an output that the row does not compute.
    """
    unknown = [name for name in outputs if name not in computed]
    if unknown:
        raise UnsupportedError(
            f"it has the outputs {', '.join(unknown)}; of these inputs mjx computes {', '.join(computed)}"
        )
    where = family.counted(inputs)
    losses = [name for name in outputs if name in family.losses]
    return (
        [
            output_difference(name, computed[name], theirs, limits, where)
            for name, theirs in outputs.items()
            if name not in losses
        ],
        [loss_difference(name, computed[name], outputs[name], limits) for name in losses],
    )
