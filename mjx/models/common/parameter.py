"""Parameters: the arrays of a model, with a name for the meaning of every dimension, and where they live.

Who changes an array is a label: the gradient (`parameter`), or a rule after the update (`buffer`).
"""

from typing import Any, TypeVar

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from mjx.sharding import Rules
from mjx.trees import Tree, flatten, name_of, nest, unflatten

ModelT = TypeVar("ModelT")


def parameter(value: jax.Array, *axes: str, precise: bool = False, float32: bool = False) -> nnx.Param:
    """A parameter whose dimensions have these logical axes.

    The names are only noted; the rule table gives them a place when a whole model is laid out. What is
    `precise` (decay rates, whose rounding a recurrence repeats) is float32 even where the model is narrower;
    what is `float32` (taps of convolutions) is only computed with so.
    """
    noted = {"precise": precise, "float32": float32 or precise}
    return nnx.Param(value, out_sharding=axes, eager_sharding=False, **noted)


class Buffer(nnx.Variable):
    """An array of the model that no gradient changes, but a rule of the model may (`after_step`)."""


def buffer(value: jax.Array, *axes: str) -> Buffer:
    """As `parameter`, for an array that no gradient changes: an expert's bias, a running mean."""
    return Buffer(value, out_sharding=axes, eager_sharding=False)


def axes_of(param: nnx.Variable) -> tuple[str, ...]:
    """The logical axes that `parameter` noted."""
    return param.get_metadata("out_sharding")


def stack_modules(build: Any, key: jax.Array, repeats: int) -> Any:
    """`repeats` modules of one shape as one module, whose parameters have a leading `layers` axis."""
    stacked = jax.vmap(build)(jax.random.split(key, repeats))
    for variable in jax.tree.leaves(stacked, is_leaf=_is_variable):
        variable.set_metadata(out_sharding=("layers", *axes_of(variable)))
    return stacked


def parameters_of(model: Any) -> Tree:
    """The model's arrays (or their shapes) as nested dicts: what is sharded and saved."""
    return _nest(model, lambda variable: variable.get_value())


def logical_axes_of(model: Any) -> Tree:
    """The logical axes of every parameter, in the shape of `parameters_of`; leaves are tuples."""
    return _nest(model, axes_of)


def differentiated(model: Any) -> Tree:
    """Whether the gradient changes an array, in the shape of `parameters_of`."""
    return _nest(model, lambda variable: not isinstance(variable, Buffer))


def precise_parameters(model: Any) -> frozenset[str]:
    """The dotted paths of those that are float32 even where the model is narrower."""
    return _noted(model, "precise")


def float32_parameters(model: Any) -> frozenset[str]:
    """The dotted paths of those that are computed with in float32, whatever the compute dtype."""
    return _noted(model, "float32")


def _noted(model: Any, what: str) -> frozenset[str]:
    noted = _nest(model, lambda variable: bool(variable.get_metadata().get(what)))
    return frozenset(path for path, holds in flatten(noted).items() if holds)


def bind(model: ModelT, parameters: Tree) -> ModelT:
    """A model like `model` whose arrays are `parameters`; cheap, for use inside `jax.jit`."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(model)
    leaves = []
    for path, _ in paths:
        node: Any = parameters
        for key in name_of(path):
            node = node[key]
        leaves.append(node)
    return jax.tree.unflatten(treedef, leaves)


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _nest(model: Any, read: Any) -> Tree:
    paths, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_variable)
    return nest({name_of(path): read(variable) for path, variable in paths})


def parameter_specs(model: Any, rules: Rules, mesh_shape: dict[str, int]) -> Tree:
    """The partition of every parameter.

    Raises:
        InputError: a parameter cannot be laid out so; the sentence names it. Or `rules` has a table for a
            module that is not there.
    """
    axes = flatten(logical_axes_of(model))
    shapes = flatten(parameters_of(model))
    rules.check_modules(model.config.modules if rules.modules else ())
    return unflatten(
        {
            path: rules.of(path).spec(
                names, shapes[path].shape, mesh_shape, kind="parameter", array=f"parameter {path}"
            )
            for path, names in axes.items()
        }
    )


def abstract_parameters(model: Any, mesh: Mesh, rules: Rules, dtype: Any = None) -> Tree:
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
