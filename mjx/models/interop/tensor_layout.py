"""Where the axes of another library's tensor go in ours, so that any part of ours can be read alone.

Written as in einops: `"(heads head_dim) embed -> embed heads head_dim"` says that their first axis holds
heads, and in each of them the head's features. A `1` is an axis of one element that the other side lacks.

One axis of theirs, or a part of it, may be in brackets: along it several parameters of ours lie one after the
other. Those of one kind are written once, whatever their sizes:

```
[mlp] embed -> embed mlp                                         gate, then up
(group [heads] head_dim) embed -> embed (group heads) head_dim   in each group: queries, a key, a value
experts embed (mlp [1]) -> experts embed mlp                     gate and up take turns, one column each
```

Those of several kinds are divided by `|`, on both sides: the first in the brackets lies as the first on the
right says, the second as the second, … Mamba-2's z, x, B, C and dt in one projection are

```
[(heads head_dim) | (heads head_dim) | (groups state) | (groups state) | heads] embed
    -> embed heads head_dim | embed heads head_dim | embed groups state | embed groups state | embed heads
```

The names in each are its own: the `heads` of one parameter may be more than those of another.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

Shape = tuple[int, ...]
Index = tuple[slice, ...]
Range = tuple[int, int]
Side = tuple[list[str], ...]
"""The names in every axis: one, or several that are merged."""


class Tensor(Protocol):
    """A tensor of theirs, in memory or on disk, of which parts can be read."""

    @property
    def shape(self) -> Shape: ...

    @property
    def dtype(self) -> np.dtype: ...

    def read(self, index: Index = ()) -> np.ndarray:
        """A copy of this part, in C order; slices have step 1, and axes without one are read whole.

        Of a tensor on disk it takes the memory of the part and little beside it. Several threads may read.
        Raises InputError when the file has been shortened since it was opened, or the disk fails.
        """
        ...


@dataclasses.dataclass(frozen=True)
class InMemory:
    """An array as a `Tensor`."""

    array: np.ndarray

    @property
    def shape(self) -> Shape:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def read(self, index: Index = ()) -> np.ndarray:
        return np.array(self.array[index])


class _Part(NamedTuple):
    """How one parameter of ours lies in their tensor. Axes of theirs and ours are made of the same names."""

    theirs: Side
    ours: Side
    sizes: dict[str, int]
    joined: list[str]
    """The names in the brackets, which are neighbours in one axis of theirs."""
    offset: int
    """Of what is before it along the brackets."""
    permutation: list[int]
    """For every name of ours its place among theirs."""


class TensorLayout:
    """A layout for parameters of given shapes.

    Args:
        text: `"theirs -> ours"`; None: one parameter, with the same axes.
        shapes: of our parameters, in the order in which they lie along the bracketed axis.
        sizes: of axes that are not whole axes of ours, such as the groups in `(group heads)`.
    """

    def __init__(self, text: str | None, shapes: Sequence[Shape], sizes: Mapping[str, int] | None = None):
        if text is None:
            names = " ".join(f"axis{i}" for i in range(len(shapes[0])))
            text = f"{names} -> {names}"
        self._parts: list[_Part] = []
        self._total = 0
        """Elements along the brackets."""
        for (theirs, joined, ours), shape in zip(_parse(text, len(shapes)), shapes, strict=True):
            solved = _solve(ours, shape, dict(sizes or {}), text)
            flat = _flat(theirs)
            if sorted(flat) != sorted(_flat(ours)):
                raise ValueError(f'"{text}" does not have the same axes on both sides')
            permutation = [flat.index(name) for name in _flat(ours)]
            self._parts.append(_Part(theirs, ours, solved, joined, self._total, permutation))
            self._total += math.prod(solved[name] for name in joined)
        if len({_axes(part, 1) for part in self._parts}) > 1:
            raise ValueError(f'"{text}" joins parameters of which other axes differ too: {list(shapes)}')
        self._number = not text.split("->")[0].strip()
        """Whether theirs has no axes; between, it has one of one element."""
        shape = tuple(math.prod(axis) for axis in _axes(self._parts[0], self._total))
        self.theirs: Shape = () if self._number else shape
        """The shape of their tensor."""

    def read(self, tensor: Tensor, part: int, index: Index) -> np.ndarray:
        """The part `index` of parameter number `part`."""
        theirs, ours, sizes, joined, offset, permutation = self._parts[part]
        asked = [
            slice_.indices(math.prod(sizes[n] for n in group))[:2]
            for slice_, group in zip(index, ours, strict=True)
        ]
        # The smallest box around what is asked for, as a range of every axis.
        box: dict[str, Range] = {}
        for (start, stop), group in zip(asked, ours, strict=True):
            box.update(_box(start, stop, group, sizes))
        # What is in brackets is one axis of theirs, in which this parameter begins at its offset.
        outer, outer_sizes, inner = box, sizes, {}
        if joined:
            span, inner = _span(joined, box, sizes)
            outer = {**box, _JOINED: (span.start + offset, span.stop + offset)}
            outer_sizes = {**sizes, _JOINED: self._total}

        spans, read = [], {}
        for group in theirs:
            span, covered = _span(_replaced(group, joined), outer, outer_sizes)
            spans.append(span)
            read |= covered
        array = _cut(tensor.read(() if self._number else tuple(spans)), read, outer)
        held = {**box, **inner}
        array = _cut(array, {name: held[name] for name in _flat(theirs)}, box).transpose(permutation)

        shape, final = [], []
        for (start, stop), group in zip(asked, ours, strict=True):
            shape.append(math.prod(box[name][1] - box[name][0] for name in group))
            begin = _flat_index([box[name][0] for name in group], group, sizes)
            final.append(slice(start - begin, stop - begin))
        return array.reshape(shape)[tuple(final)]

    def write(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Their tensor from the whole of our parameters."""
        written, axis = [], 0
        for array, part in zip(arrays, self._parts, strict=True):
            split = np.asarray(array).reshape([part.sizes[name] for name in _flat(part.ours)])
            flat = _flat(part.theirs)
            inverse = [part.permutation.index(place) for place in range(len(flat))]
            axis = flat.index(part.joined[0]) if part.joined else 0
            shape = [part.sizes[name] for name in flat]
            shape[axis : axis + len(part.joined)] = [math.prod(part.sizes[name] for name in part.joined)]
            written.append(split.transpose(inverse).reshape(shape))
        whole = np.concatenate(written, axis) if len(written) > 1 else written[0]
        return whole.reshape(self.theirs)


_JOINED = "[]"
"""The name of what is in brackets, as one axis."""


def _axes(part: _Part, joined: int) -> tuple[Shape, ...]:
    """The parts of every axis of theirs, with so many elements along the brackets."""
    sizes = {**part.sizes, _JOINED: joined}
    return tuple(tuple(sizes[name] for name in _replaced(group, part.joined)) for group in part.theirs)


def _cut(array: np.ndarray, read: Mapping[str, Range], box: Mapping[str, Range]) -> np.ndarray:
    """A box out of an array that has these ranges of the names of its axes."""
    array = array.reshape([last - first for first, last in read.values()])
    return array[
        tuple(slice(box[name][0] - first, box[name][1] - first) for name, (first, _) in read.items())
    ]


def _replaced(group: list[str], joined: list[str]) -> list[str]:
    """An axis of theirs with what is in brackets as one name."""
    if not joined or joined[0] not in group:
        return group
    at = group.index(joined[0])
    return [*group[:at], _JOINED, *group[at + len(joined) :]]


def _flat(groups: Sequence[list[str]]) -> list[str]:
    return [name for group in groups for name in group]


def _parse(text: str, parts: int) -> list[tuple[Side, list[str], Side]]:
    """For each parameter: the names in every axis of theirs, those of them in brackets, and those in ours."""
    left, right = text.split("->")
    rights = right.split("|")
    brackets = re.findall(r"\[(.*?)\]", left)
    if len(brackets) > 1:
        raise ValueError(f'"{text}" has more than one axis in brackets')
    if not brackets and parts > 1:
        raise ValueError(f'"{text}" has no [axis] along which {parts} parameters could lie')
    kinds = brackets[0].split("|") if brackets else [""]
    if len(kinds) != len(rights) or len(kinds) not in (1, parts):
        raise ValueError(
            f'"{text}" has {len(kinds)} kinds of parameters on its left and {len(rights)} on its right, for '
            f"{parts} parameters"
        )
    read = []
    for kind, ours in zip(kinds, rights, strict=True):
        theirs = re.sub(r"\[.*?\]", lambda _, kind=kind: f"( [ {kind} ] )", left)
        (their_axes, joined), (our_axes, _) = _names(theirs, "<", text), _names(ours, ">", text)
        for axes, others in ((their_axes, our_axes), (our_axes, their_axes)):
            ones = [name for name in _flat(others) if name[0] in "<>" and name not in _flat(axes)]
            if ones and not axes and axes is our_axes:
                raise ValueError(f'"{text}" is no layout: a number has no axis in which a 1 could be')
            axes[-1:] = [[*itertools.chain(*axes[-1:]), *ones]] if ones else axes[-1:]
        read.append((tuple(their_axes), joined, tuple(our_axes)))
    return read * parts if len(read) < parts else read


def _names(side: str, one: str, text: str) -> tuple[list[list[str]], list[str]]:
    """The names in every axis, and those in brackets; each 1 gets a name that begins with `one`."""
    groups: list[list[str]] = []
    joined: list[str] = []
    depth, in_brackets = 0, False
    for token in re.findall(r"\w+|\S", side):
        if token == "(":
            groups += [] if depth else [[]]
            depth += 1
        elif token == ")":
            depth -= 1
        elif token in "[]":
            in_brackets = token == "["
        elif token.isidentifier() or token == "1":
            groups += [] if depth else [[]]
            name = f"{one}{len(_flat(groups))}" if token == "1" else token
            groups[-1].append(name)
            joined += [name] if in_brackets else []
        else:
            depth = -1
        if depth < 0:
            break
    if depth or not all(groups):
        raise ValueError(f'"{text}" is no layout: "{side.strip()}" cannot be read')
    return groups, joined


def _solve(groups: Side, shape: Shape, sizes: dict[str, int], text: str) -> dict[str, int]:
    """The size of every axis, of which each of our axes leaves at most one to find out."""
    if len(groups) != len(shape):
        raise ValueError(f'"{text}" gives our parameter {len(groups)} axes, but it has the shape {shape}')
    sizes |= {name: 1 for name in _flat(groups) if name[0] in "<>"}
    for group, size in zip(groups, shape, strict=True):
        open_names = [name for name in group if name not in sizes]
        known = math.prod(sizes[name] for name in group if name in sizes)
        if len(open_names) > 1 or size % known or (not open_names and known != size):
            raise ValueError(f'"{text}" does not say how an axis of {size} is made of {group}')
        for name in open_names:
            sizes[name] = size // known
    return sizes


def _box(start: int, stop: int, group: list[str], sizes: Mapping[str, int]) -> dict[str, Range]:
    """Ranges of a merged axis' parts that hold its elements `start` to `stop`."""
    if start >= stop:
        start = stop = 0
    if len(group) == 1:
        return {group[0]: (start, stop)}
    inner = math.prod(sizes[name] for name in group[1:])
    low, high = start // inner, -(-stop // inner)
    if high - low == 1:
        return {group[0]: (low, high), **_box(start - low * inner, stop - low * inner, group[1:], sizes)}
    return {group[0]: (low, high), **{name: (0, sizes[name]) for name in group[1:]}}


def _span(
    group: list[str], box: Mapping[str, Range], sizes: Mapping[str, int]
) -> tuple[slice, dict[str, Range]]:
    """The contiguous part of a merged axis that holds a box, and the box that is that part."""
    inner = math.prod(sizes[name] for name in group[1:])
    low, high = box[group[0]]
    if len(group) > 1 and high - low == 1:
        span, read = _span(group[1:], box, sizes)
        shifted = slice(low * inner + span.start, low * inner + span.stop)
        return shifted, {group[0]: (low, high), **read}
    return slice(low * inner, high * inner), {
        group[0]: (low, high),
        **{name: (0, sizes[name]) for name in group[1:]},
    }


def _flat_index(indices: list[int], group: list[str], sizes: Mapping[str, int]) -> int:
    flat = 0
    for index, name in zip(indices, group, strict=True):
        flat = flat * sizes[name] + index
    return flat
