"""A run folder, opened for use: its config, its model, its weights on any mesh."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from mjx.config import RunConfig, apply_override, parse_config, read_yaml
from mjx.errors import InputError
from mjx.models.common.parameter import Tree, parameters_of
from mjx.sharding import Rules, build_mesh, use_mesh
from mjx.training.checkpoint import Checkpointer
from mjx.training.run_folder import RunFolder
from mjx.training.state import abstract_model, parameter_specs


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """The weights of a checkpoint, laid out."""

    folder: RunFolder
    config: RunConfig
    step: int
    mesh: Mesh
    rules: Rules
    model: Any
    """The definition; `bind(model, parameters)` is the model."""
    parameters: Tree


def read_run_config(run_dir: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The resolved recipe of a run, with overrides (of mesh, sampling, runtime; the model is what it is).

    Raises:
        InputError: the folder is not a run folder.
    """
    folder = RunFolder(run_dir)
    if not folder.config.is_file():
        raise InputError(f"{folder.path} is not a run folder: it has no config.yaml")
    tree = read_yaml(folder.config)
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree)


def load_run(run_dir: str, config: RunConfig, step: int | None = None) -> SavedRun:
    """Restore the weights of a checkpoint (the newest) onto `config.mesh`, without the optimizer's state.

    Raises:
        InputError: there is no such checkpoint, or it is not of this model.
    """
    folder = RunFolder(run_dir)
    mesh, rules = build_mesh(config.mesh), config.sharding.build(sequence_parallel=False)
    with use_mesh(mesh, rules):
        model = abstract_model(config.model)
        specs = parameter_specs(model, rules, dict(mesh.shape))
        abstract = jax.tree.map(
            lambda leaf, spec: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)
            ),
            parameters_of(model),
            specs,
        )
        with Checkpointer(folder.checkpoints, config.checkpoint) as checkpointer:
            if step is None:
                step = checkpointer.latest_step()
            if step is None:
                raise InputError(f"{folder.path} has no checkpoint yet")
            restored, _ = checkpointer.restore({"parameters": abstract}, step, partial=True)
    return SavedRun(folder, config, step, mesh, rules, model, restored["parameters"])
