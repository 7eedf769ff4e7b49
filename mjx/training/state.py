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

from mjx.models.common.parameter import parameter_specs, parameters_of
from mjx.models.family import ModelConfig
from mjx.sharding import Rules, axes_per_dimension
from mjx.training.optimizer import like_params
from mjx.trees import Tree, split


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that training changes, and all that a checkpoint has to keep."""

    step: Int[Array, ""]
    """Steps done."""
    parameters: Tree
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class StateLayout:
    """Shapes and places of a training state."""

    shapes: TrainState
    shardings: TrainState
    trained: Tree
    """Whether the optimizer changes a parameter; the optimizer's state is of those alone."""
    moments: Tree
    """Where gradients meet the optimizer's moments: as the parameters, or further split (ZeRO-1)."""

    @property
    def abstract(self) -> TrainState:
        """Shapes with shardings: what a checkpoint is restored to."""

        def place(shape: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

        return jax.tree.map(place, self.shapes, self.shardings)


def plan_state(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    rules: Rules,
    *,
    trained: Tree,
    zero1: bool,
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
    moments, _ = split(moments, trained)
    replicated, (of_optimizer, _) = NamedSharding(mesh, PartitionSpec()), split(shapes, trained)
    state = TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),  # type: ignore[arg-type]
        parameters=shapes,
        optimizer=jax.eval_shape(optimizer.init, of_optimizer),
    )
    shardings = TrainState(
        step=replicated,  # type: ignore[arg-type]
        parameters=parameters,
        optimizer=like_params(state.optimizer, of_optimizer, moments, replicated),
    )
    return StateLayout(state, shardings, trained, moments)


def init_state(
    config: ModelConfig, optimizer: optax.GradientTransformation, layout: StateLayout, seed: int
) -> TrainState:
    """A fresh state, drawn where it lives; the numbers depend on the seed, never on the mesh."""

    def init(key: jax.Array) -> TrainState:
        parameters = parameters_of(config.build(nnx.Rngs(params=key)))
        trained, _ = split(parameters, layout.trained)
        return TrainState(jnp.zeros((), jnp.int32), parameters, optimizer.init(trained))

    return jax.jit(init, out_shardings=layout.shardings)(jax.random.key(seed))


def state_of(parameters: Tree, optimizer: optax.GradientTransformation, layout: StateLayout) -> TrainState:
    """A state that begins with given parameters, which lie as `layout` says."""
    trained, _ = split(parameters, layout.trained)
    moments = jax.jit(optimizer.init, out_shardings=layout.shardings.optimizer)(trained)
    step = jax.jit(lambda: jnp.zeros((), jnp.int32), out_shardings=layout.shardings.step)()
    return TrainState(step, parameters, moments)


def _further(spec: PartitionSpec, shape: tuple[int, ...], mesh_shape: dict[str, int]) -> PartitionSpec:
    """`spec` with `data` on the largest dimension that it divides (Rajbhandari et al. 2020, P_os)."""
    entries = list(axes_per_dimension(spec, len(shape)))

    def shards(index: int) -> int:
        return math.prod(mesh_shape[axis] for axis in entries[index])

    data = mesh_shape["data"]
    fitting = [i for i, size in enumerate(shape) if size % (shards(i) * data) == 0]
    if data == 1 or not fitting:
        return spec
    index = max(fitting, key=lambda i: shape[i] // shards(i))
    entries[index] = (*entries[index], "data")
    return PartitionSpec(*(axes[0] if len(axes) == 1 else axes or None for axes in entries))
