"""`mjx explain CONFIG`: the sharding of every parameter and of the activations, on any machine."""

import itertools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from mjx.batch import BatchArrays, size_of
from mjx.config import RunConfig, load_config
from mjx.errors import InputError
from mjx.gpus.data_sheet import data_sheet
from mjx.models.common.parameter import logical_axes_of, parameters_of
from mjx.models.family import abstract_model
from mjx.plan.explain.activations import activations_of
from mjx.plan.explain.page import page
from mjx.plan.explain.placement import Placement, Section, activation_table, parameter_table, place
from mjx.plan.request import on_gpus
from mjx.training.moments import moments_of
from mjx.trees import flatten
from mjx.words import mesh_words, readable_bytes


def explain(
    path: str,
    overrides: list[str],
    devices: int | None,
    *,
    activations: bool = False,
    html: str | None = None,
    gpu: str | None = None,
) -> None:
    """Print the tables; nothing is allocated or compiled, so any mesh can be looked at.

    The mesh is for `devices`; None: as many as its sizes say, or runtime.cpu_devices. `html` names a file
    for a page that draws parameters and activations. With `gpu`, or where the recipe asks for CUDA, dtypes
    are those of GPUs.

    Raises:
        InputError: the GPU is not known, the rules cannot lay an array out on this mesh, or the file cannot
            be written.
    """
    config = load_config(path, overrides)
    if gpu is not None:
        data_sheet(gpu)
    if gpu is not None or config.runtime.platform == "cuda":
        config = on_gpus(config)
    if devices is None:
        named = math.prod(size for size in config.mesh.sizes().values() if size != -1)
        devices = config.runtime.cpu_devices or named
    mesh_shape = config.mesh.resolve(devices)
    model = abstract_model(config.model)
    parameters = _parameters(config, model, mesh_shape)
    mesh = f"{mesh_words(mesh_shape)} ({devices} devices)"
    whole, active = config.model.num_parameters(), config.model.num_active_parameters()
    count = f"{whole:,} parameters" if active == whole else f"{whole:,} parameters, {active:,} of a token"
    count = f"{count}, computed with in {config.model.compute_dtype}"
    held = _held_in_training(config, model, parameters, mesh_shape)
    arrays = config.data.arrays(config.training.batch_size // config.training.microbatches)
    rows, tokens = size_of(arrays)
    title = f"Activations of one microbatch ({rows} rows of {tokens} tokens), as the model makes them"
    made = _activations(
        config, model, arrays, mesh_shape
    )  # not only to show them: what does not fit is refused
    if html is not None:
        recipe = " ".join((path, *overrides))
        facts = [f"{count}, {held}"]
        text = page(recipe, mesh, facts, mesh_shape, parameters, title, made)
        _write(html, text)

    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to break lines for
        console = Console(highlight=False, width=160)
    console.print(f"mesh: {mesh}; {count}\n", style="bold", markup=False)
    console.print(parameter_table("Parameters", parameters))
    console.print(f"{held}\n")
    if activations:
        console.print(activation_table(title, made))
    if html is not None:
        console.print(f"written to {html}", soft_wrap=True, markup=False)


def _parameters(config: RunConfig, model: Any, mesh_shape: dict[str, int]) -> list[Placement]:
    rules, axes = config.sharding.build(), flatten(logical_axes_of(model))
    shapes = flatten(parameters_of(model))
    rules.check_modules(config.model.modules)
    return [
        place(name, axes[name], leaf, rules.of(name), mesh_shape, "parameter")
        for name, leaf in shapes.items()
    ]


def _held_in_training(
    config: RunConfig, model: Any, parameters: list[Placement], mesh_shape: dict[str, int]
) -> str:
    """A sentence on what a device keeps from step to step."""
    moments = moments_of(config.optimizer, model)
    held = 0
    for placed in parameters:
        sizes = [leaf.dtype.itemsize for leaf in moments[placed.name]]
        held += 2 * placed.local_bytes + math.prod(placed.local_shape) * sum(sizes)
    counts = sorted({len(leaves) for leaves in moments.values()})
    less = " (less by zero1)" if config.training.zero1 and mesh_shape["data"] > 1 else ""
    plural = "s" * (counts[-1] > 1)
    return (
        f"with gradients and {' or '.join(map(str, counts))} optimizer moment{plural}: about "
        f"{readable_bytes(held)} on a device{less}"
    )


def _activations(
    config: RunConfig, model: Any, arrays: BatchArrays, mesh_shape: dict[str, int]
) -> list[Section]:
    """The batch, then what the model makes of it."""
    rules = config.sharding.build()
    batch = {name: jax.ShapeDtypeStruct(a.shape, jnp.dtype(a.dtype)) for name, a in arrays.items()}
    inputs = [
        place(f"batch {name}", array.axes, batch[name], rules, mesh_shape, "activation")
        for name, array in arrays.items()
    ]
    sections = [("batch", inputs)]
    every = activations_of(model, batch, mesh_shape, rules)
    for section, found in itertools.groupby(every, key=lambda found: found.section):
        made = [
            place(one.name, one.axes, one.leaf, rules.of(one.module), mesh_shape, "activation", one.code)
            for one in found
        ]
        sections.append((section, made))
    return sections


def _write(file: str, text: str) -> None:
    path = Path(file)
    if not path.parent.is_dir():
        raise InputError(f"cannot write {file}: there is no folder {path.parent}")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from error
