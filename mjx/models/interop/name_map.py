"""One table, read in both directions: another library's tensors ↔ our parameters.

A table is a list of rows. Each names one tensor of theirs, the parameters of ours that it holds, and
where their axes go (`TensorLayout`):

```
Row("h.{layer}.attn.c_proj.weight", "{attention}.attention.output.kernel",
    "(heads head_dim) embed -> heads head_dim embed")
Row("h.{layer}.moe.experts.{expert}.w2.weight", "{moe}.moe.down.kernel", "embed mlp -> mlp embed")
```

`{layer}` in their name stands for every layer that has what ours names: `{attention}`, the place where the
stack keeps that layer's sub-layer of this kind. Layers without one have no such tensor. `{expert}` stands for
every element of the parameter's `experts` axis, its first behind `layers`. What their name numbers is not in
the layout: `embed mlp -> mlp embed` is of one expert. A tensor of all experts has the axis in its layout.

So the rows of a mixer are written once, and a model's table is those of its mixers, one after the other.
Any part of a parameter can be read by itself, so that each process reads only what its own devices hold.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mjx.errors import InputError
from mjx.models.interop.tensor_layout import Index, InMemory, Shape, Tensor, TensorLayout
from mjx.trees import Tree, flatten, unflatten

Place = tuple[str, tuple[int, ...]]
"""A parameter's dotted path, and an index on its first axes: none, of a layer, of a layer and an expert."""
Sublayers = Callable[[str, int], tuple[str, int] | None]
"""Where the stack keeps a layer's sub-layer: `("attention", 3)` → its path and its index on `layers`.
None: the layer has none of this kind."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of theirs."""

    theirs: str
    """Its name, e.g. `h.{layer}.ln_1.weight`, `h.{layer}.experts.{expert}.w1.weight`."""
    ours: str | tuple[str, ...]
    """The parameters that it holds, in order."""
    layout: str | None = None
    """Their axes → ours; None: the same."""
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Of axes in `layout` that are not whole axes of ours."""
    rows: int | None = None
    """Length of an axis of theirs, where ours, our first, is padded with zeros to more (the vocabulary)."""
    rows_axis: int = 0
    """Which axis of theirs that is."""
    layer: int | None = None
    """The layer that ours is of, where their name says another number, or none."""
    padded: bool = False
    """Whether theirs may be padded too: what it has beyond `rows` is not read."""


class _Entry(NamedTuple):
    """A row, for one layer and expert."""

    places: tuple[Place, ...]
    layout: TensorLayout
    row: Row


class NameMap:
    """A table for one model: a bijection between their tensors and our parameters.

    Args:
        rows: the table. Two rows may have one name, where no layer has both.
        num_layers: what `{layer}` ranges over.
        place: where the stack keeps a layer's sub-layer.
        shapes: the shapes of our parameters (`parameters_of` an abstract model).
        copies: tensors of theirs that may be there as well, and must equal another (a tied head).
        ignored: regular expressions of tensors that are no parameters (masks and tables saved with them).
    """

    def __init__(
        self,
        rows: Sequence[Row],
        num_layers: int,
        place: Sublayers,
        shapes: Tree,
        *,
        copies: Mapping[str, str] | None = None,
        ignored: Sequence[str] = (),
    ):
        sizes = {path: tuple(leaf.shape) for path, leaf in flatten(shapes).items()}
        expanded = [
            (name, places, row) for row in rows for name, places in _expand(row, num_layers, place, sizes)
        ]
        self._hold(expanded, sizes, dict(copies or {}), ignored)

    @classmethod
    def joined(cls, parts: Mapping[str, tuple[str, "NameMap"]]) -> "NameMap":
        """Of a model made of others: what a part's paths begin with → what its tensors begin with, and its
        table."""
        whole = cls.__new__(cls)
        expanded, shapes, copies, ignored = [], {}, {}, []
        for ours, (theirs, part) in parts.items():
            shapes |= {f"{ours}{path}": shape for path, shape in part._shapes.items()}
            copies |= {f"{theirs}{name}": f"{theirs}{other}" for name, other in part._copies.items()}
            ignored += [re.escape(theirs) + pattern.pattern for pattern in part._ignored]
            for name, entry in part._entries.items():
                places = tuple((f"{ours}{path}", index) for path, index in entry.places)
                expanded.append((f"{theirs}{name}", places, entry.row))
        whole._hold(expanded, shapes, copies, ignored)
        return whole

    def _hold(
        self,
        expanded: Sequence[tuple[str, tuple[Place, ...], Row]],
        shapes: dict[str, Shape],
        copies: dict[str, str],
        ignored: Sequence[str],
    ) -> None:
        """The table, with a row for every tensor.

        Raises:
            ValueError: it is no bijection.
        """
        self._shapes = shapes
        self._sources: dict[str, dict[tuple[int, ...], tuple[str, int]]] = {}
        """Of a parameter's path and an index on its first axes: the tensor that holds it, as which part."""
        odd = self._fill(expanded)
        if odd:
            raise ValueError(f"the name map is not a bijection: {', '.join(odd[:5])} ({len(odd)} in all)")
        layouts: dict[tuple[Any, ...], TensorLayout] = {}  # the same for thousands of experts
        self._entries: dict[str, _Entry] = {}
        for name, places, row in expanded:
            key = (id(row), *(self._shape(place) for place in places))
            if key not in layouts:
                layouts[key] = TensorLayout(row.layout, key[1:], row.sizes)
            self._entries[name] = _Entry(places, layouts[key], row)
        self._copies = copies
        self._ignored = [re.compile(pattern) for pattern in ignored]

    def _fill(self, expanded: Sequence[tuple[str, tuple[Place, ...], Row]]) -> list[str]:
        """Note every parameter's tensors; what is there twice, or only on one side, is odd."""
        odd: list[str] = []
        names: set[str] = set()
        for name, places, _ in expanded:
            odd += [name] if name in names else []
            names.add(name)
            for part, (path, index) in enumerate(places):
                shape, given = self._shapes.get(path), self._sources.setdefault(path, {})
                if (
                    index in given
                    or shape is None
                    or len(index) > len(shape)
                    or not all(0 <= at < size for at, size in zip(index, shape, strict=False))
                    or (given and len(index) != len(next(iter(given))))
                ):
                    odd.append(_shown(path, index))
                given[index] = (name, part)
        for path in self._shapes:
            given = self._sources.get(path)
            if given is None:
                odd.append(path)
            elif len(given) < math.prod(self._shapes[path][: len(next(iter(given)))]):
                odd += [_shown(path, index) for index in self._indices(path) if index not in given]
        return odd

    @property
    def theirs(self) -> dict[str, Shape]:
        """Their tensors, in the order of the table, and their shapes."""
        shapes = {}
        for name, entry in self._entries.items():
            shape = entry.layout.theirs
            rows, axis = entry.row.rows, entry.row.rows_axis
            shapes[name] = shape if rows is None else (*shape[:axis], rows, *shape[axis + 1 :])
        return shapes

    def check(self, tensors: Mapping[str, Tensor], without: Collection[str] = ()) -> None:
        """Raise if these are not the tensors of this model, but for the parameters `without`; nothing but
        their shapes is looked at.

        Raises:
            InputError: a tensor that no row takes, a parameter that none fills, or one of another shape.
        """
        absent = {name for path in without for name in self.sources(path)}
        expected = {name: shape for name, shape in self.theirs.items() if name not in absent}
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
            more = self._entries[name].row.padded and found[:1] > shape[:1]
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
        depth, shape = self.depth(path), self._shapes[path]
        if not depth:
            return self._read(tensors, (path, ()), index).astype(dtype, copy=False)
        numbers = [range(*slice_.indices(size)) for slice_, size in zip(index[:depth], shape, strict=False)]
        rest = [slice_.stop - slice_.start for slice_ in index[depth:]]
        out = _aligned((*map(len, numbers), *rest), dtype)
        for at, place in zip(np.ndindex(*map(len, numbers)), itertools.product(*numbers), strict=True):
            out[at] = self._read(tensors, (path, place), index[depth:])
        return out

    def depth(self, path: str) -> int:
        """On how many of a parameter's first axes (layers, experts) each element is a tensor of its own."""
        return len(next(iter(self._sources[path])))

    def sources(self, path: str) -> list[str]:
        """The tensors that a parameter is read from, in the order of its first `depth` axes."""
        return [self._sources[path][index][0] for index in self._indices(path)]

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

    def their_tensor(self, name: str, read: Callable[[str, tuple[int, ...]], np.ndarray]) -> np.ndarray:
        """One tensor of theirs; `read(path, index)` gives our arrays, at an index on their first axes."""
        entry = self._entries[name]
        tensor = entry.layout.write([read(path, index) for path, index in entry.places])
        if entry.row.rows is None:
            return tensor
        return tensor[(*(slice(None),) * entry.row.rows_axis, slice(entry.row.rows))]

    def to_theirs(self, parameters: Tree) -> dict[str, np.ndarray]:
        """Their tensors from our parameters (or from gradients of the same shape)."""
        flat = {path: np.asarray(leaf) for path, leaf in flatten(parameters).items()}

        return {
            name: self.their_tensor(name, lambda path, index: flat[path][index]) for name in self._entries
        }

    def _read(self, tensors: Mapping[str, Tensor], place: Place, index: Index) -> np.ndarray:
        path, at = place
        name, part = self._sources[path][at]
        _, layout, row = self._entries[name]
        if row.rows is None:
            return layout.read(tensors[name], part, index)
        start, stop, _ = index[0].indices(self._shape(place)[0])
        held = slice(min(start, row.rows), min(stop, row.rows))
        array = layout.read(tensors[name], part, (held, *index[1:]))
        missing = (stop - start) - (held.stop - held.start)
        return np.pad(array, ((0, missing), *[(0, 0)] * (array.ndim - 1))) if missing else array

    def _shape(self, place: Place) -> Shape:
        path, index = place
        return self._shapes[path][len(index) :]

    def _indices(self, path: str) -> Iterator[tuple[int, ...]]:
        return itertools.product(*map(range, self._shapes[path][: self.depth(path)]))


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
    row: Row, num_layers: int, place: Sublayers, shapes: Mapping[str, Shape]
) -> Iterator[tuple[str, tuple[Place, ...]]]:
    """The row's tensors, of every layer that has them and every expert."""
    ours = (row.ours,) if isinstance(row.ours, str) else row.ours
    numbered = set(re.findall(r"{(.*?)}", row.theirs))
    if numbered - {"layer", "expert"}:
        raise ValueError(f"{row.theirs} numbers something else than {{layer}} and {{expert}}")
    kinds = [re.match(r"\{(\w+)\}", pattern) for pattern in ours]
    for layer in range(num_layers) if "layer" in numbered else (row.layer,):
        places: list[Place] = []
        for pattern, kind in zip(ours, kinds, strict=True):
            if layer is None:
                places.append((pattern, ()))
            elif kind is None:
                raise ValueError(f"{pattern} of the per-layer row {row.theirs} does not name a sub-layer")
            elif (found := place(kind.group(1), layer)) is not None:
                places.append((found[0] + pattern[kind.end() :], (found[1],)))
        if places and len(places) < len(ours):
            raise ValueError(f"layer {layer} has only some of the sub-layers that {row.theirs} holds")
        if "expert" not in numbered:
            if places:
                yield row.theirs.format(layer=layer), tuple(places)
            continue
        for expert in range(_num_experts(places[0], shapes) if places else 0):
            name = row.theirs.format(layer=layer, expert=expert)
            yield name, tuple((path, (*index, expert)) for path, index in places)


def _num_experts(place: Place, shapes: Mapping[str, Shape]) -> int:
    """What `{expert}` ranges over; 1 for what is no parameter or has no such axis, so that it is named."""
    path, index = place
    behind = shapes.get(path, ())[len(index) :]
    return behind[0] if behind else 1


def _shown(path: str, index: tuple[int, ...]) -> str:
    return f"{path}[{', '.join(map(str, index))}]" if index else path


def _aligned(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Uninitialised, from a multiple of 64 bytes: a CPU device takes such an array over, without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)
