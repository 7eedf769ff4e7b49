"""What the model calls the arrays that lie in memory at a step's peak."""

import math
from collections.abc import Callable

import jax

from mjx.config import RunConfig
from mjx.plan.explain.activations import activations_of
from mjx.plan.explain.placement import place
from mjx.plan.program.buffers import Buffer
from mjx.training.trainer import Trainer
from mjx.trees import flatten

_STACK = "models/common/stack.py "


def buffer_names(config: RunConfig, trainer: Trainer) -> Callable[[Buffer], str]:
    """A buffer's name: that of the parameter whose gradient it is, what `mjx explain --activations` calls the
    activation, or the module that makes it on its way there; empty where no module of a layer does."""
    parameters: dict[tuple[int, ...], list[str]] = {}
    for path, leaf in flatten(trainer.layout.abstract.parameters).items():
        parameters.setdefault(tuple(sorted(leaf.sharding.shard_shape(leaf.shape))), []).append(path)
    made = _activations(config, trainer)

    def name(buffer: Buffer) -> str:
        if buffer.role == "gradient":
            first, *others = parameters[tuple(sorted(buffer.shape))]
            return f"{first} or {len(others)} alike" if others else first
        sizes = (math.prod(buffer.shape), math.prod(buffer.shape[1:]))  # of one layer, or of all
        for depth, function in enumerate(buffer.functions):
            if function.startswith(_STACK):
                break
            here = made.get(function, set())
            modules = {name.partition(" ")[0] for name, _ in here}
            fitting = {name for name, size in here if size in sizes and depth == 0}
            for names in (fitting, modules):
                if len(names) == 1:
                    return names.pop()
        return ""

    return name


def _activations(config: RunConfig, trainer: Trainer) -> dict[str, set[tuple[str, int]]]:
    """Function of a layer's code → names and sizes (elements on one device) of the activations of a
    microbatch that it makes."""
    rules, mesh = config.sharding.build(), dict(trainer.mesh.shape)
    arrays = config.data.arrays(config.training.batch_size // config.training.microbatches)
    batch = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays.items()}
    made: dict[str, set[tuple[str, int]]] = {}
    for found in activations_of(trainer.model, batch, mesh, rules):
        if found.section != type(trainer.model).__name__:
            placed = place(found.name, found.axes, found.leaf, rules.of(found.module), mesh, "activation")
            made.setdefault(found.function, set()).add((found.name, math.prod(placed.local_shape)))
    return made
