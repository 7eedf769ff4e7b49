"""One case through mjx: outputs, losses and gradients, of one program."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mjx.models.common.parameter import bind
from mjx.models.family import Batch, abstract_model
from mjx.trees import Tree
from oracles.difference import Difference, Limits, difference, gradient_scale, loss_scale, output_scale
from oracles.families import Family
from oracles.report import Compared

Arrays = Mapping[str, np.ndarray]


class UnsupportedError(Exception):
    """The case is of something that mjx does not have yet; the sentence says of what."""


@functools.cache
def _program(family: Family, config: Any, gradients: bool):
    """Compiled once for all cases of one config and one shape, which differ in their numbers only."""
    model = abstract_model(config)

    def compute(parameters: Tree, batch: Batch):
        computed = family.compute(bind(model, parameters), batch)
        return (computed.get("total", computed["loss"]) if gradients else None), computed

    return jax.jit(jax.value_and_grad(compute, has_aux=True) if gradients else compute)


def run(
    family: Family, config: Any, parameters: Tree, batch: Batch, *, gradients: bool
) -> tuple[dict[str, np.ndarray], Tree | None]:
    """What mjx computes, under the library's names, and with `gradients` those of the loss."""
    if gradients:
        (_, computed), tree = _program(family, config, True)(parameters, batch)
        return jax.tree.map(np.asarray, (computed, tree))
    _, computed = _program(family, config, False)(parameters, batch)
    return jax.tree.map(np.asarray, computed), None


def check_names(family: Family, inputs: Arrays) -> None:
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


def compare(
    family: Family,
    config: Any,
    parameters: Tree,
    inputs: Arrays,
    outputs: Arrays,
    limits: Limits,
    *,
    gradients: Arrays | None = None,
    their_names: Callable[[Tree], dict[str, np.ndarray]] = lambda tree: {},
) -> Compared:
    """All outputs, losses and gradients of a case.

    Args:
        family: The row of its names.
        config: Of the model.
        parameters: Those of the case.
        inputs: Of the case.
        outputs: Those of the case, losses included.
        limits: What is near enough.
        gradients: Those of the case; what its loss does not reach has none there. None: it has none at all.
        their_names: Our gradients → theirs.

    Raises:
        UnsupportedError: it has an output that the row does not compute.
    """
    inputs = family.prepared(config, inputs)
    batch = family.batch(inputs)
    counted = family.counted(inputs)

    def ours(parameters: Tree) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        computed, tree = run(family, config, parameters, batch, gradients=gradients is not None)
        unknown = [name for name in outputs if name not in computed]
        if unknown:
            raise UnsupportedError(
                f"it has the outputs {', '.join(unknown)}; of these inputs mjx computes {', '.join(computed)}"
            )
        return computed, {} if tree is None else their_names(tree)

    computed, slopes = ours(parameters)
    zeros = {name: np.zeros_like(slope) for name, slope in slopes.items()}
    expected = {**zeros, **(gradients or {})}

    def differences(moved: Arrays, moved_slopes: Arrays) -> Compared:
        """With how far rounding moves each number, where that is known."""
        found: dict[bool, list[Difference]] = {False: [], True: []}
        for name, theirs in outputs.items():
            is_loss, where = name in family.losses, None
            if not is_loss and counted is not None:
                where = _broadcast(counted, theirs)
            against = loss_scale(theirs, limits) if is_loss else output_scale(theirs, limits, where)
            step = _step(moved.get(name), computed[name], where) * limits.rounding
            found[is_loss].append(difference(name, computed[name], theirs, against, where, step))
        steep = [
            difference(
                f"gradient of {name}",
                slope,
                expected[name],
                gradient_scale(expected[name], limits),
                moved=_step(moved_slopes.get(name), slope) * limits.rounding,
            )
            for name, slope in slopes.items()
        ]
        absent = [f"mjx has no gradient of {name}" for name in expected if name not in slopes]
        return Compared(found[False], found[True], steep, sentences=absent)

    result = differences({}, {})
    beyond = [each for each in result.differences() if not each.within]
    if not beyond or not limits.rounding:
        return result
    result = differences(*ours(_rounded(parameters)))
    saved = {each.name for each in result.differences() if each.within} & {each.name for each in beyond}
    notes = [f"within rounding: {each.sentence}" for each in result.differences() if each.name in saved]
    return result.with_notes(notes)


def _broadcast(counted: np.ndarray, theirs: np.ndarray) -> np.ndarray | None:
    if theirs.shape[: counted.ndim] != counted.shape:
        return None
    return np.broadcast_to(counted.reshape(counted.shape + (1,) * (theirs.ndim - counted.ndim)), theirs.shape)


def _rounded(parameters: Tree) -> Tree:
    """Every weight somewhere within half a unit of its last place."""
    draw = np.random.default_rng(0)

    def move(leaf: np.ndarray) -> np.ndarray:
        leaf = np.asarray(leaf)
        return (leaf * (1 + draw.uniform(-(2.0**-24), 2.0**-24, leaf.shape))).astype(leaf.dtype)

    return jax.tree.map(move, parameters)


def _step(moved: np.ndarray | None, ours: np.ndarray, where: np.ndarray | None = None) -> float:
    if moved is None:
        return 0.0
    apart = np.abs(np.asarray(moved, np.float64) - ours)
    return float((apart if where is None else apart[where]).max(initial=0.0))
