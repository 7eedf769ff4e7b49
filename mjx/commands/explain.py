"""`mjx explain CONFIG`: the sharding of every parameter and of the main activations, on any machine."""

import math

import jax
import jax.numpy as jnp
from rich.console import Console

from mjx.config import load_config
from mjx.models.common.parameter import bind, flatten, logical_axes_of, parameters_of
from mjx.models.family import abstract_model
from mjx.sharding.constrain import observe
from mjx.sharding.explain import Placement, place, readable_bytes, table


def explain(path: str, overrides: list[str], devices: int | None) -> None:
    """Print the tables; nothing is allocated or compiled, so any mesh can be looked at.

    The mesh is for `devices`; None: as many as its sizes say, or runtime.cpu_devices.
    """
    config = load_config(path, overrides)
    if devices is None:
        named = math.prod(size for size in config.mesh.sizes().values() if size != -1)
        devices = config.runtime.cpu_devices or named
    mesh_shape = config.mesh.resolve(devices)
    rules = config.sharding.build()
    model = abstract_model(config.model)
    axes, shapes = flatten(logical_axes_of(model)), flatten(parameters_of(model))
    parameters = [
        place(name, axes[name], leaf, rules, mesh_shape, "parameter") for name, leaf in shapes.items()
    ]

    activations: dict[tuple, Placement] = {}

    def note(names: tuple[str | None, ...], leaf: jax.ShapeDtypeStruct) -> None:
        label = "activation" if "batch" in names else "gathered"
        placement = place(label, names, leaf, rules, mesh_shape, "activation")
        activations[(names, leaf.shape, leaf.dtype)] = placement

    plan = config.training
    rows = plan.batch_size // plan.microbatches
    batch = {
        name: jax.ShapeDtypeStruct(array.shape, jnp.dtype(array.dtype))
        for name, array in config.model.batch(
            rows, config.data.sequence_length, extras=config.data.batch_extras
        ).items()
    }
    for name, array in config.model.batch(rows, config.data.sequence_length).items():
        placement = place(f"batch {name}", array.axes, batch[name], rules, mesh_shape, "activation")
        activations[(name,)] = placement
    with observe(note):
        jax.eval_shape(lambda p, b: bind(model, p).loss(b), parameters_of(model), batch)

    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to break lines for
        console = Console(highlight=False, width=160)
    used = " × ".join(f"{axis} {size}" for axis, size in mesh_shape.items() if size > 1) or "one device"
    count = config.model.num_parameters()
    console.print(f"mesh: {used} ({devices} devices); {count:,} parameters\n", style="bold")
    console.print(table("Parameters", parameters))
    optimizer = 2 if config.optimizer.name in ("adamw", "muon") else 1
    held = sum(p.local_bytes for p in parameters)
    shown = readable_bytes(held * (2 + optimizer))
    console.print(
        f"with gradients and {optimizer} optimizer moment{'s' * (optimizer > 1)}: about {shown} on a device"
        + (" (less by zero1)" if plan.zero1 and mesh_shape["data"] > 1 else "")
        + "\n"
    )
    console.print(table(f"Activations of one microbatch ({rows} rows)", activations.values()))
