"""Where the axes of another library's tensor go in ours, so that any part of ours can be read alone.

Written as in einops: `"(heads head_dim) embed -> embed heads head_dim"` says that their first axis holds
heads, and in each of them the head's features. One axis of theirs may be in brackets: along it several
parameters of ours lie one after the other, such as gate and up in `"[mlp] embed -> embed mlp"`.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

Shape = tuple[int, ...]
Index = tuple[slice, ...]
Range = tuple[int, int]


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
        left, right = text.split("->")
        self._theirs, bracketed = _parse(left)
        self._ours, _ = _parse(right)
        self._joined = bracketed
        if bracketed is None and len(shapes) > 1:
            raise ValueError(f'"{text}" has no [axis] along which {len(shapes)} parameters could lie')
        self._sizes = [_solve(self._ours, shape, dict(sizes or {}), text) for shape in shapes]
        if sorted(_flat(self._theirs)) != sorted(_flat(self._ours)):
            raise ValueError(f'"{text}" does not have the same axes on both sides')
        self._total = dict(self._sizes[0])
        if bracketed is not None:
            self._total[bracketed] = sum(part[bracketed] for part in self._sizes)

    @property
    def theirs(self) -> Shape:
        """The shape of their tensor."""
        return tuple(math.prod(self._total[name] for name in group) for group in self._theirs)

    def read(self, tensor: Tensor, part: int, index: Index) -> np.ndarray:
        """The part `index` of parameter number `part`."""
        sizes = self._sizes[part]
        asked = [
            slice_.indices(math.prod(sizes[n] for n in group))[:2]
            for slice_, group in zip(index, self._ours, strict=True)
        ]
        # The smallest box around what is asked for, as a range of every axis.
        box: dict[str, Range] = {}
        for (start, stop), group in zip(asked, self._ours, strict=True):
            box.update(_box(start, stop, group, sizes))
        held = dict(box)
        if self._joined is not None:
            offset = sum(before[self._joined] for before in self._sizes[:part])
            low, high = held[self._joined]
            held[self._joined] = (low + offset, high + offset)

        spans, covered, cut = [], [], []
        for group in self._theirs:
            span, read = _span(group, held, self._total)
            spans.append(span)
            for name in group:
                first, last = read[name]
                covered.append(last - first)
                cut.append(slice(held[name][0] - first, held[name][1] - first))
        array = tensor.read(tuple(spans)).reshape(covered)[tuple(cut)]
        array = array.transpose(self._permutation())

        shape, final = [], []
        for (start, stop), group in zip(asked, self._ours, strict=True):
            shape.append(math.prod(box[name][1] - box[name][0] for name in group))
            begin = _flat_index([box[name][0] for name in group], group, sizes)
            final.append(slice(start - begin, stop - begin))
        return array.reshape(shape)[tuple(final)]

    def write(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Their tensor from the whole of our parameters."""
        parts = []
        permutation = self._permutation()
        inverse = [permutation.index(axis) for axis in range(len(permutation))]
        for array, sizes in zip(arrays, self._sizes, strict=True):
            split = np.asarray(array).reshape([sizes[name] for group in self._ours for name in group])
            parts.append(split.transpose(inverse))
        if self._joined is not None:
            parts = [np.concatenate(parts, axis=_flat(self._theirs).index(self._joined))]
        return parts[0].reshape(self.theirs)

    def _permutation(self) -> list[int]:
        flat = _flat(self._theirs)
        return [flat.index(name) for group in self._ours for name in group]


def _flat(groups: list[list[str]]) -> list[str]:
    return [name for group in groups for name in group]


def _parse(side: str) -> tuple[list[list[str]], str | None]:
    """The names in every axis, and the one in brackets."""
    groups: list[list[str]] = []
    for merged, single in re.findall(r"\(([^)]*)\)|(\S+)", side):
        groups.append((merged or single).split())
    bracketed = re.findall(r"\[(\w+)\]", side)
    if len(bracketed) > 1:
        raise ValueError(f'"{side}" has more than one axis in brackets')
    return [[name.strip("[]") for name in group] for group in groups], bracketed[0] if bracketed else None


def _solve(groups: list[list[str]], shape: Shape, sizes: dict[str, int], text: str) -> dict[str, int]:
    """The size of every axis, of which each of our axes leaves at most one to find out."""
    if len(groups) != len(shape):
        raise ValueError(f'"{text}" gives our parameter {len(groups)} axes, but it has the shape {shape}')
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
    if len(group) == 1 or start >= stop:
        return {group[0]: (start, stop), **{name: (0, sizes[name]) for name in group[1:]}}
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
