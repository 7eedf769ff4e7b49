"""The training state: step, parameters, optimizer state, and where each of them lives."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from mjx.models.common.parameter import Tree, flatten, logical_axes_of, parameters_of, unflatten
from mjx.models.family import ModelConfig
from mjx.sharding import Rules
from mjx.training.optimizer import like_params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that training changes, and all that a checkpoint has to keep."""

    step: Int[Array, ""]
    """Steps done."""
    parameters: Tree
    optimizer: Any


def abstract_model(config: ModelConfig) -> Any:
    """The module with shapes in place of arrays: the definition that `bind` fills."""
    return jax.eval_shape(lambda: config.build(nnx.Rngs(params=jax.random.key(0))))


def parameter_specs(model: nnx.Module, rules: Rules, mesh_shape: dict[str, int]) -> Tree:
    """The partition of every parameter.

    Raises:
        InputError: a parameter cannot be laid out so; the sentence names it.
    """
    axes = flatten(logical_axes_of(model))
    shapes = flatten(parameters_of(model))
    return unflatten(
        {
            path: rules.spec(
                names, shapes[path].shape, mesh_shape, kind="parameter", array=f"parameter {path}"
            )
            for path, names in axes.items()
        }
    )


@dataclasses.dataclass(frozen=True)
class StateLayout:
    """Shapes and places of a training state."""

    shapes: TrainState
    shardings: TrainState
    moments: Tree
    """Where gradients meet the optimizer's moments: as the parameters, or further split (ZeRO-1)."""

    @property
    def abstract(self) -> TrainState:
        """Shapes with shardings: what a checkpoint is restored to."""

        def place(shape: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

        return jax.tree.map(place, self.shapes, self.shardings)


def plan_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, mesh: Mesh, rules: Rules, *, zero1: bool
) -> StateLayout:
    """Lay the state out over a mesh: the optimizer's moments as their parameters, or further over `data`."""
    mesh_shape = dict(mesh.shape)
    shapes = parameters_of(model)
    specs = parameter_specs(model, rules, mesh_shape)
    parameters = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    moments = parameters
    if zero1:
        moments = jax.tree.map(
            lambda leaf, spec: NamedSharding(mesh, _further(spec, leaf.shape, mesh_shape)), shapes, specs
        )
    replicated = NamedSharding(mesh, PartitionSpec())
    state = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),  # type: ignore[arg-type]
        parameters=shapes,
        optimizer=jax.eval_shape(optimizer.init, shapes),
    )
    shardings = TrainState(
        step=replicated,  # type: ignore[arg-type]
        parameters=parameters,
        optimizer=like_params(state.optimizer, shapes, moments, replicated),
    )
    return StateLayout(state, shardings, moments)


def init_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, layout: StateLayout, seed: int
) -> TrainState:
    """A fresh state, drawn where it lives; the numbers depend on the seed, never on the mesh."""

    def init(key: jax.Array) -> TrainState:
        parameters = parameters_of(config.build(nnx.Rngs(params=key)))
        return TrainState(jnp.zeros((), jnp.int32), parameters, optimizer.init(parameters))

    return jax.jit(init, out_shardings=layout.shardings)(jax.random.key(seed))


def _further(spec: PartitionSpec, shape: tuple[int, ...], mesh_shape: dict[str, int]) -> PartitionSpec:
    """`spec` with `data` on the largest dimension that it divides (Rajbhandari et al. 2020, P_os)."""
    entries: list[Any] = [*spec, *[None] * (len(shape) - len(spec))]

    def axes(entry: Any) -> tuple[str, ...]:
        return (entry,) if isinstance(entry, str) else tuple(entry or ())

    def shards(index: int) -> int:
        return math.prod(mesh_shape[axis] for axis in axes(entries[index]))

    data = mesh_shape["data"]
    fitting = [i for i, size in enumerate(shape) if size % (shards(i) * data) == 0]
    if data == 1 or not fitting:
        return spec
    index = max(fitting, key=lambda i: shape[i] // shards(i))
    entries[index] = (*axes(entries[index]), "data")
    return PartitionSpec(*entries)
