"""Where the parameters of a model live on a mesh."""

from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from mjx.models.common.parameter import logical_axes_of, parameters_of
from mjx.sharding import Rules
from mjx.trees import Tree, flatten, unflatten


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


def abstract_parameters(model: nnx.Module, mesh: Mesh, rules: Rules, dtype: Any = None) -> Tree:
    """Shapes with shardings: what weights are loaded to; `dtype` None: the model's own.

    Raises:
        InputError: as `parameter_specs`.
    """
    specs = parameter_specs(model, rules, dict(mesh.shape))
    return jax.tree.map(
        lambda leaf, spec: jax.ShapeDtypeStruct(
            leaf.shape, dtype or leaf.dtype, sharding=NamedSharding(mesh, spec)
        ),
        parameters_of(model),
        specs,
    )
