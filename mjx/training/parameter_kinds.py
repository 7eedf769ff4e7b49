"""What kind of parameter an array is, told by its logical axis names.

Shapes cannot tell: layers are stacked, so a norm's scale is [layers, embed], and a query kernel is
[layers, embed, heads, head_dim] with a bias of [layers, heads, head_dim].
"""

import dataclasses
from typing import Any, Literal

import jax
from jaxtyping import PyTree

Kind = Literal["hidden", "table", "vector"]
"""`hidden`: a matrix (or a stack of them) from hidden features to hidden features. `table`: any other
array of two or more features: embeddings, heads, positions, convolutions. `vector`: norms, biases,
sinks, gates."""

STACKED = ("stages", "layers", "experts")
"""Leading axes that count independent parameters. A router is [embed, experts]: there, `experts` does not
lead and is a feature."""

OWNERS = ("heads", "kv_heads", "groups", "inner")
SHARES = ("head_dim", "state")
"""A share directly behind an owner is one feature with it: [heads, head_dim] is a vector of
heads · head_dim numbers, and Mamba's [inner, state] are the per-channel decay rates, no matrix."""

SIDE_BY_SIDE = ("streams",)
"""What stands behind one of these is one feature with it: [streams, embed] are those of all streams."""

OUTSIDE = ("vocab", "positions", "buckets", "conv", "pixels")
"""Features that are not hidden: tables are looked up by them, convolutions slide over them, pictures have
them."""


@dataclasses.dataclass(frozen=True)
class MatrixDimensions:
    """The dimensions of an array that index a stack, and those that form its matrices (input × output)."""

    stack: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def parameter_kind(axes: tuple[str, ...]) -> Kind:
    features = _features(axes)
    if len(features) < 2:
        return "vector"
    if len(features) > 2 or any(name in OUTSIDE for name in axes):
        return "table"
    return "hidden"


def matrix_dimensions(axes: tuple[str, ...]) -> MatrixDimensions:
    """The matrix view of a `hidden` parameter; kernels are stored [inputs..., outputs...]."""
    inputs, outputs = _features(axes)
    return MatrixDimensions(tuple(range(inputs[0])), inputs, outputs)


def match_axes(params: PyTree, axes: PyTree) -> list[tuple[str, ...]]:
    """The axis names of each leaf of `params`, in the order of `jax.tree.leaves`.

    Raises:
        ValueError: the trees do not match, or a dimension has no name.
    """
    names: list[Any] = jax.tree.leaves(axes, is_leaf=_is_axes)
    arrays = jax.tree_util.tree_leaves_with_path(params)
    if len(names) != len(arrays):
        raise ValueError(f"{len(arrays)} parameters, but axis names for {len(names)}")
    for (path, array), leaf in zip(arrays, names, strict=True):
        where = jax.tree_util.keystr(path)
        if not _is_axes(leaf) or len(leaf) != len(array.shape):
            raise ValueError(f"parameter {where} has shape {tuple(array.shape)}, but the axes {leaf}")
        if None in leaf:
            raise ValueError(f"parameter {where} has an axis without a name: {leaf}")
    return names


def _features(axes: tuple[str, ...]) -> list[tuple[int, ...]]:
    first = 0
    while first < len(axes) and axes[first] in STACKED:
        first += 1
    groups: list[tuple[int, ...]] = []
    for i in range(first, len(axes)):
        shared = axes[i] in SHARES and axes[i - 1] in OWNERS
        if i > first and (shared or axes[i - 1] in SIDE_BY_SIDE):
            groups[-1] += (i,)
        else:
            groups.append((i,))
    return groups


def _is_axes(node: Any) -> bool:
    return isinstance(node, tuple) and all(name is None or isinstance(name, str) for name in node)
