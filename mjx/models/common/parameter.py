"""Parameters: arrays that training updates, with a name for the meaning of every dimension."""

from typing import Any, TypeVar

import jax
from flax import nnx

ModelT = TypeVar("ModelT")
Tree = dict[str, Any]
"""Nested dicts by attribute name, e.g. `tree["embedding"]["weight"]`."""


def parameter(value: jax.Array, *axes: str) -> nnx.Param:
    """A parameter whose dimensions have these logical axes.

    The names are only noted; the rule table gives them a place when a whole model is laid out.
    """
    return nnx.Param(value, out_sharding=axes, eager_sharding=False)


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
    """The model's arrays (or their shapes) as nested dicts: what is trained, sharded and saved."""
    return _nest(model, lambda variable: variable.get_value())


def logical_axes_of(model: Any) -> Tree:
    """The logical axes of every parameter, in the shape of `parameters_of`; leaves are tuples."""
    return _nest(model, axes_of)


def bind(model: ModelT, parameters: Tree) -> ModelT:
    """A model like `model` whose arrays are `parameters`; cheap, for use inside `jax.jit`."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(model)
    leaves = []
    for path, _ in paths:
        node: Any = parameters
        for key in _names(path):
            node = node[key]
        leaves.append(node)
    return jax.tree.unflatten(treedef, leaves)


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, keyed by dotted path."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else key
        flat.update(flatten(value, path) if isinstance(value, dict) else {path: value})
    return flat


def unflatten(flat: dict[str, Any]) -> Tree:
    """The inverse of `flatten`."""
    tree: Tree = {}
    for path, value in flat.items():
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


def _names(path: tuple[Any, ...]) -> list[str]:
    keys = [
        str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry)))) for entry in path
    ]
    return keys[:-1] if keys and keys[-1] == "value" else keys


def _nest(model: Any, read: Any) -> Tree:
    paths, _ = jax.tree_util.tree_flatten_with_path(model, is_leaf=_is_variable)
    return unflatten({".".join(_names(path)): read(variable) for path, variable in paths})
