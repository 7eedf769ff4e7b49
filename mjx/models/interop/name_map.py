"""One table, read in both directions: another library's tensors ↔ our parameters.

A table is a list of rows. Each names one tensor of theirs, the parameters of ours that it holds, and
where their axes go (`TensorLayout`):

```
Row("h.{layer}.attn.c_proj.weight", "{attention}.attention.output.kernel",
    "(heads head_dim) embed -> heads head_dim embed")
```

`{layer}` in their name stands for every layer; `{attention}` or `{mlp}` in ours for the place where the
stack keeps that layer's sub-layer. Any part of a parameter can be read by itself, so that each process
reads only what its own devices hold.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mjx.errors import InputError
from mjx.models.interop.tensor_layout import Index, InMemory, Shape, Tensor, TensorLayout
from mjx.trees import Tree, flatten, unflatten

Place = tuple[str, int | None]
"""A parameter's dotted path, and its index on the `layers` axis (None: it has no such axis)."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of theirs."""

    theirs: str
    """Its name, e.g. `h.{layer}.ln_1.weight`."""
    ours: str | tuple[str, ...]
    """The parameters that it holds, in order."""
    layout: str | None = None
    """Their axes → ours; None: the same."""
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Of axes in `layout` that are not whole axes of ours."""
    rows: int | None = None
    """Length of their first axis, where ours is padded with zeros to more (the vocabulary)."""
    padded: bool = False
    """Whether theirs may be padded too: what it has beyond `rows` is not read."""


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A row, for one layer."""

    places: tuple[Place, ...]
    layout: TensorLayout
    rows: int | None
    padded: bool


class NameMap:
    """A table for one model: a bijection between their tensors and our parameters.

    Args:
        rows: the table.
        num_layers: what `{layer}` ranges over.
        place: where the stack keeps a layer's sub-layer: `("attention", 3)` → its path and index.
        shapes: the shapes of our parameters (`parameters_of` an abstract model).
        copies: tensors of theirs that may be there as well, and must equal another (a tied head).
        ignored: regular expressions of tensors that are no parameters (masks and tables saved with them).
    """

    def __init__(
        self,
        rows: Sequence[Row],
        num_layers: int,
        place: Callable[[str, int], tuple[str, int]],
        shapes: Tree,
        *,
        copies: Mapping[str, str] | None = None,
        ignored: Sequence[str] = (),
    ):
        self._shapes = {path: tuple(leaf.shape) for path, leaf in flatten(shapes).items()}
        expanded = [(name, places, row) for row in rows for name, places in _expand(row, num_layers, place)]
        self._sources: dict[Place, tuple[str, int]] = {}
        names: set[str] = set()
        odd: list[str] = []
        for name, places, _ in expanded:
            odd += [name] if name in names else []
            names.add(name)
            for part, spot in enumerate(places):
                odd += [str(spot)] if spot in self._sources or spot[0] not in self._shapes else []
                self._sources[spot] = (name, part)
        for path, shape in self._shapes.items():
            if (path, None) not in self._sources:
                missing = [layer for layer in range(shape[0]) if (path, layer) not in self._sources]
                odd += [f"{path}, layer {layer}" for layer in missing]
        if odd:
            raise ValueError(f"the name map is not a bijection: {', '.join(odd[:5])} ({len(odd)} in all)")
        self._entries = {
            name: _Entry(
                tuple(places),
                TensorLayout(row.layout, [self._shape(spot) for spot in places], row.sizes),
                row.rows,
                row.padded,
            )
            for name, places, row in expanded
        }
        self._copies = dict(copies or {})
        self._ignored = [re.compile(pattern) for pattern in ignored]

    @property
    def theirs(self) -> dict[str, Shape]:
        """Their tensors, in the order of the table, and their shapes."""
        shapes = {}
        for name, entry in self._entries.items():
            shape = entry.layout.theirs
            shapes[name] = shape if entry.rows is None else (entry.rows, *shape[1:])
        return shapes

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise if these are not the tensors of this model; nothing but their shapes is looked at.

        Raises:
            InputError: a tensor that no row takes, a parameter that none fills, or one of another shape.
        """
        expected = self.theirs
        unknown = [
            name
            for name in tensors
            if name not in expected
            and not (name in self._copies and self._copies[name] in tensors)
            and not any(pattern.fullmatch(name) for pattern in self._ignored)
        ]
        missing = [name for name in expected if name not in tensors]
        if unknown or missing:
            parts = [
                f"{len(names)} {what} ({', '.join(names[:5])}{' …' if len(names) > 5 else ''})"
                for what, names in (("unknown", unknown), ("missing", missing))
                if names
            ]
            raise InputError(f"the tensors do not fit the model: {' and '.join(parts)}")
        for name, shape in expected.items():
            found = tuple(tensors[name].shape)
            more = self._entries[name].padded and found[:1] > shape[:1]
            if found != ((found[0], *shape[1:]) if more else shape):
                ours = ", ".join(path for path, _ in self._entries[name].places)
                raise InputError(
                    f"tensor {name} has the shape {list(found)}, but the model's config asks for "
                    f"{list(shape)} ({ours})"
                )
        for name, original in self._copies.items():
            if name in tensors and not _equal(tensors[name], tensors[original]):
                raise InputError(
                    f"tensor {name} differs from {original}, but the config says that they are tied; "
                    f'with "tie_word_embeddings": false both are kept'
                )

    def read(
        self, tensors: Mapping[str, Tensor], path: str, index: Index, dtype: np.dtype | None = None
    ) -> np.ndarray:
        """A part of one of our parameters, from `check`ed tensors; of each only what it takes is read.

        `index` has a slice for every axis of the parameter, `layers` first where there is one. `dtype` None:
        as they are stored.
        """
        dtype = dtype or self.stored_dtype(tensors, path)
        if (path, None) in self._sources:
            return self._read(tensors, (path, None), index).astype(dtype, copy=False)
        layers = range(*index[0].indices(self._shapes[path][0]))
        shape = [slice_.stop - slice_.start for slice_ in index[1:]]
        out = _aligned((len(layers), *shape), dtype)
        for place, layer in enumerate(layers):
            out[place] = self._read(tensors, (path, layer), index[1:])
        return out

    def sources(self, path: str) -> list[str]:
        """The tensors that a parameter is read from, layer by layer where it has layers."""
        if (path, None) in self._sources:
            return [self._sources[path, None][0]]
        return [self._sources[path, layer][0] for layer in range(self._shapes[path][0])]

    def parts(self, name: str) -> list[str]:
        """The parameters that one tensor of theirs holds."""
        return [path for path, _ in self._entries[name].places]

    def stored_dtype(self, tensors: Mapping[str, Tensor], path: str) -> np.dtype:
        """What holds a parameter's numbers as they are stored; at most float32.

        Raises:
            InputError: they are no floating-point numbers of at least 16 bits.
        """
        dtypes = set()
        for name in self.sources(path):
            dtype = tensors[name].dtype
            if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize < 2:
                raise InputError(
                    f"tensor {name} holds {dtype} numbers; mjx reads weights of 16, 32 or 64 bits, none that "
                    "are quantised"
                )
            dtypes.add(dtype)
        return dtypes.pop() if len(dtypes) == 1 and dtype.itemsize < 8 else np.dtype(np.float32)

    def to_ours(self, tensors: Mapping[str, Any]) -> Tree:
        """All our parameters from all their tensors (arrays, or tensors still on disk).

        Raises:
            InputError: as `check`.
        """
        named = {name: InMemory(t) if isinstance(t, np.ndarray) else t for name, t in tensors.items()}
        self.check(named)
        return unflatten(
            {path: self.read(named, path, _whole(shape)) for path, shape in self._shapes.items()}
        )

    def their_tensor(self, name: str, read: Callable[[str, int | None], np.ndarray]) -> np.ndarray:
        """One tensor of theirs; `read(path, layer)` gives our arrays (`layer` None: the whole parameter)."""
        entry = self._entries[name]
        tensor = entry.layout.write([read(path, layer) for path, layer in entry.places])
        return tensor if entry.rows is None else tensor[: entry.rows]

    def to_theirs(self, parameters: Tree) -> dict[str, np.ndarray]:
        """Their tensors from our parameters (or from gradients of the same shape)."""
        flat = {path: np.asarray(leaf) for path, leaf in flatten(parameters).items()}

        def read(path: str, layer: int | None) -> np.ndarray:
            return flat[path] if layer is None else flat[path][layer]

        return {name: self.their_tensor(name, read) for name in self._entries}

    def _read(self, tensors: Mapping[str, Tensor], place: Place, index: Index) -> np.ndarray:
        name, part = self._sources[place]
        entry = self._entries[name]
        if entry.rows is None:
            return entry.layout.read(tensors[name], part, index)
        start, stop, _ = index[0].indices(self._shape(place)[0])
        held = slice(min(start, entry.rows), min(stop, entry.rows))
        array = entry.layout.read(tensors[name], part, (held, *index[1:]))
        missing = (stop - start) - (held.stop - held.start)
        return np.pad(array, ((0, missing), *[(0, 0)] * (array.ndim - 1))) if missing else array

    def _shape(self, place: Place) -> Shape:
        path, layer = place
        shape = self._shapes[path]
        return shape if layer is None else shape[1:]


def _whole(shape: Shape) -> Index:
    return tuple(slice(0, size) for size in shape)


def _equal(a: Tensor, b: Tensor, rows: int = 4096) -> bool:
    """Some rows at a time: the two may be the largest tensors there are."""
    if tuple(a.shape) != tuple(b.shape):
        return False
    return all(
        np.array_equal(a.read((slice(start, start + rows),)), b.read((slice(start, start + rows),)))
        for start in range(0, a.shape[0], rows)
    )


def _expand(
    row: Row, num_layers: int, place: Callable[[str, int], tuple[str, int]]
) -> Iterator[tuple[str, list[Place]]]:
    """The row's tensors, one per layer."""
    ours = (row.ours,) if isinstance(row.ours, str) else row.ours
    if "{layer}" not in row.theirs:
        yield row.theirs, [(path, None) for path in ours]
        return
    for layer in range(num_layers):
        places: list[Place] = []
        for pattern in ours:
            kind = re.match(r"\{(\w+)\}", pattern)
            if kind is None:
                raise ValueError(f"{pattern} of the per-layer row {row.theirs} does not name a sub-layer")
            path, index = place(kind.group(1), layer)
            places.append((path + pattern[kind.end() :], index))
        yield row.theirs.format(layer=layer), places


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Uninitialised, from a multiple of 64 bytes: a CPU device takes such an array over, without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)
