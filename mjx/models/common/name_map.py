"""One table, read in both directions: another library's tensors ↔ our parameters.

A table is a list of rows. Each names one tensor of theirs, the parameters of ours that it holds, and
the transform between the two. `{layer}` in their name stands for every layer; `{attention}` or
`{mlp}` in ours for the place where the stack keeps that layer's sub-layer.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mjx.errors import InputError
from mjx.models.common.parameter import Tree, flatten, unflatten

Shape = tuple[int, ...]
Place = tuple[str, int | None]
"""A parameter's dotted path, and its index on the `layers` axis (None: it has no such axis)."""


class Transform(Protocol):
    """Between one tensor of theirs and the parameters of ours that it holds."""

    def ours(self, theirs: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
        """Our arrays, of these shapes."""
        ...

    def theirs(self, ours: Sequence[np.ndarray]) -> np.ndarray: ...


class Same:
    """The same numbers in the same order."""

    def ours(self, theirs: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
        return [theirs]

    def theirs(self, ours: Sequence[np.ndarray]) -> np.ndarray:
        return ours[0]


@dataclasses.dataclass(frozen=True)
class Transposed:
    """PyTorch's `[outputs, inputs]` ↔ our kernel, inputs first; `outputs` of our axes come last."""

    outputs: int = 1

    def ours(self, theirs: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
        return [theirs.T.reshape(shapes[0])]

    def theirs(self, ours: Sequence[np.ndarray]) -> np.ndarray:
        kernel = ours[0]
        width = int(np.prod(kernel.shape[kernel.ndim - self.outputs :]))
        return kernel.reshape(-1, width).T


class Flat:
    """A bias over several of our axes is one vector of theirs."""

    def ours(self, theirs: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
        return [theirs.reshape(shapes[0])]

    def theirs(self, ours: Sequence[np.ndarray]) -> np.ndarray:
        return ours[0].reshape(-1)


@dataclasses.dataclass(frozen=True)
class Stacked:
    """Several of our maps, one after the other along their outputs (`[gate; up]`); kernels or biases."""

    kernel: bool = True

    def ours(self, theirs: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
        parts = np.split(theirs, len(shapes))
        return [part.T if self.kernel else part for part in parts]

    def theirs(self, ours: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([part.T if self.kernel else part for part in ours])


@dataclasses.dataclass(frozen=True)
class Grouped:
    """Heads fused per key/value group, `[q … q, (gate … gate), k, v]` for each; kernels or biases."""

    groups: int
    kernel: bool = True

    def ours(self, theirs: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
        head_dim = shapes[0][-1]
        sizes = [shape[-2] // self.groups for shape in shapes]
        cut = theirs.reshape(self.groups, sum(sizes), head_dim, -1)
        parts = np.split(cut, np.cumsum(sizes)[:-1], axis=1)
        if not self.kernel:
            return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        # [groups, heads of a group, head_dim, inputs] → [inputs, heads, head_dim]
        return [np.moveaxis(part, -1, 0).reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def theirs(self, ours: Sequence[np.ndarray]) -> np.ndarray:
        parts = []
        for part in ours:
            inputs = part.shape[0] if self.kernel else 1
            cut = part.reshape(inputs, self.groups, -1, part.shape[-1])
            parts.append(np.moveaxis(cut, 0, -1))
        fused = np.concatenate(parts, axis=1)
        return fused.reshape(-1, fused.shape[-1]) if self.kernel else fused.reshape(-1)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A table whose padding they do not have: zeros of ours, cut off for them."""

    rows: int

    def ours(self, theirs: np.ndarray, shapes: Sequence[Shape]) -> list[np.ndarray]:
        if theirs.shape[0] != self.rows:
            raise ValueError(f"the vocabulary has {self.rows} ids, not {theirs.shape[0]}")
        return [np.pad(theirs, ((0, shapes[0][0] - theirs.shape[0]), (0, 0)))]

    def theirs(self, ours: Sequence[np.ndarray]) -> np.ndarray:
        return ours[0][: self.rows]


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of theirs."""

    theirs: str
    ours: tuple[str, ...]
    transform: Transform = Same()


class NameMap:
    """A table for one model: bijective between their tensors and our parameters.

    Args:
        rows: the table.
        num_layers: what `{layer}` ranges over.
        place: where the stack keeps a layer's sub-layer: `("attention", 3)` → its path and index.
        shapes: the shapes of our parameters (`parameters_of` an abstract model).
    """

    def __init__(
        self,
        rows: Sequence[Row],
        num_layers: int,
        place: Callable[[str, int], tuple[str, int]],
        shapes: Tree,
    ):
        self._shapes = {path: tuple(leaf.shape) for path, leaf in flatten(shapes).items()}
        self._entries = {
            theirs: (places, row.transform)
            for row in rows
            for theirs, places in _expand(row, num_layers, place)
        }
        named = [entry for places, _ in self._entries.values() for entry in places]
        wanted = {
            (path, layer)
            for path, shape in self._shapes.items()
            for layer in (range(shape[0]) if (path, None) not in named else [None])
        }
        if len(named) != len(set(named)) or set(named) != wanted:
            odd = sorted({str(n) for n in set(named) ^ wanted} | {str(n) for n in named if named.count(n) > 1})
            raise ValueError(f"the name map is not a bijection: {', '.join(odd[:5])} ({len(odd)} in all)")

    def to_ours(self, tensors: Mapping[str, np.ndarray]) -> Tree:
        """Our parameters from their tensors.

        Raises:
            InputError: a tensor that no row takes, or a parameter that none fills.
        """
        unknown = [name for name in tensors if name not in self._entries]
        missing = [name for name in self._entries if name not in tensors]
        if unknown or missing:
            parts = [f"{len(names)} {what} ({', '.join(names[:5])}{' …' if len(names) > 5 else ''})"
                     for what, names in (("unknown", unknown), ("missing", missing)) if names]
            raise InputError(f"the tensors do not fit the model: {' and '.join(parts)}")
        filled: dict[str, Any] = {}
        for name, (places, transform) in self._entries.items():
            shapes = [self._shape(place) for place in places]
            try:
                arrays = transform.ours(np.asarray(tensors[name]), shapes)
            except ValueError as error:
                raise InputError(
                    f"tensor {name} of shape {np.shape(tensors[name])} does not hold {shapes}: {error}"
                ) from error
            for (path, layer), shape, array in zip(places, shapes, arrays, strict=True):
                if array.shape != shape:
                    raise InputError(f"tensor {name} gives {path} the shape {array.shape}, not {shape}")
                if layer is None:
                    filled[path] = array
                else:
                    filled.setdefault(path, np.empty(self._shapes[path], array.dtype))[layer] = array
        return unflatten(filled)

    def to_theirs(self, parameters: Tree) -> dict[str, np.ndarray]:
        """Their tensors from our parameters (or from gradients of the same shape)."""
        flat = {path: np.asarray(leaf) for path, leaf in flatten(parameters).items()}

        def read(path: str, layer: int | None) -> np.ndarray:
            return flat[path] if layer is None else flat[path][layer]

        return {
            name: transform.theirs([read(*place) for place in places])
            for name, (places, transform) in self._entries.items()
        }

    def _shape(self, place: Place) -> Shape:
        path, layer = place
        return self._shapes[path] if layer is None else self._shapes[path][1:]


def _expand(
    row: Row, num_layers: int, place: Callable[[str, int], tuple[str, int]]
) -> Iterator[tuple[str, list[Place]]]:
    """The row's tensors, one per layer."""
    if "{layer}" not in row.theirs:
        yield row.theirs, [(path, None) for path in row.ours]
        return
    for layer in range(num_layers):
        places: list[Place] = []
        for pattern in row.ours:
            kind = re.match(r"\{(\w+)\}", pattern)
            if kind is None:
                raise ValueError(f"{pattern} of the per-layer row {row.theirs} does not name a sub-layer")
            path, index = place(kind.group(1), layer)
            places.append((path + pattern[kind.end() :], index))
        yield row.theirs.format(layer=layer), places
