"""Arrays and meshes as rectangles: only numbers, which the page makes into pictures.

An array is drawn as one rectangle per pair of dimensions, from the last backwards; a dimension left over is
a bar in front. Lengths grow with the logarithm of sizes, and every rectangle is cut into its shards.
"""

import dataclasses
import math
from collections.abc import Mapping

from mjx.plan.explain.placement import Placement

DRAWN_DEVICES = 64
"""Of a larger mesh only the axes are drawn."""
_CHARACTER = 6.3
"""Width of one in the pictures' labels."""
_ABOVE = 16
"""Height of the label above a rectangle."""
_BAR = 14
"""Thickness of a dimension that stands alone."""
_CLOSEST = 4
"""Cuts stand at least so far apart; of more than fit, every second, third, … is drawn."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One dimension of an array."""

    name: str
    size: int
    splits: tuple[tuple[str, int], ...]
    """(mesh axis, its size) of those that split it."""
    length: float
    held: float
    """How much of the length one device has."""
    cuts: tuple[tuple[float, str], ...]
    """(place, mesh axis): between two shards, the outermost axis in which they differ."""

    @property
    def label(self) -> str:
        return f"{self.name} {self.size}"

    @property
    def marks(self) -> str:
        return " ".join(f"÷{size}" for _, size in self.splits)

    @property
    def label_width(self) -> float:
        return _CHARACTER * len(f"{self.label} {self.marks}")


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """One or two dimensions; `across` runs from left to right, `down` from top to bottom."""

    x: float
    y: float
    width: float
    height: float
    across: Side | None
    down: Side | None

    @property
    def held(self) -> tuple[float, float]:
        """Width and height of the first device's part."""
        return (
            self.across.held if self.across else self.width,
            self.down.held if self.down else self.height,
        )


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One array."""

    width: float
    height: float
    rectangles: tuple[Rectangle, ...]


@dataclasses.dataclass(frozen=True)
class Box:
    """A device, or a frame around those that share a place on a mesh axis."""

    x: float
    y: float
    width: float
    height: float
    axis: str
    """The mesh axis that it is a place of; empty for the only device."""
    label: str
    title: str
    device: bool = False


@dataclasses.dataclass(frozen=True)
class MeshDrawing:
    """Boxes in boxes."""

    width: float
    height: float
    boxes: tuple[Box, ...]


def draw(placement: Placement, mesh_shape: Mapping[str, int]) -> Drawing:
    """The rectangles of one array, side by side."""
    dimensions = list(zip(placement.axes, placement.shape, placement.mesh_axes, strict=True))
    alone = len(dimensions) % 2
    groups = [dimensions[:1]] * alone + [dimensions[at : at + 2] for at in range(alone, len(dimensions), 2)]
    x, rectangles = 0.0, []
    for group in groups:
        vector = len(dimensions) == 1
        across = _side(group[-1], mesh_shape, 18, 8.5, 130) if vector or len(group) == 2 else None
        down = None if vector else _side(group[0], mesh_shape, 16, 4.5, 80)
        left = _CHARACTER * max(len(down.label), len(down.marks)) + 7 if down else 0
        width, height = across.length if across else _BAR, down.length if down else _BAR
        rectangles.append(Rectangle(round(x + left, 1), 0, width, height, across, down))
        x += left + max(width, across.label_width if across else 0) + 14
    tallest = max((r.height for r in rectangles), default=0)
    centred = [dataclasses.replace(r, y=round(_ABOVE + (tallest - r.height) / 2, 1)) for r in rectangles]
    return Drawing(round(max(x - 14, 0), 1), tallest + _ABOVE + 2, tuple(centred))


def draw_mesh(mesh_shape: Mapping[str, int]) -> MeshDrawing | None:
    """Every device in the frames of its places; None for more than can be looked at."""
    axes = [(axis, size) for axis, size in mesh_shape.items() if size > 1]
    if math.prod(size for _, size in axes) > DRAWN_DEVICES:
        return None
    width, height, boxes = _nested(axes, {}, 0)
    return MeshDrawing(width + 2, height + 2, tuple(_moved(box, 1, 1) for box in boxes))


def _side(dimension: tuple, mesh_shape: Mapping[str, int], least: float, growth: float, most: float) -> Side:
    name, size, axes = dimension
    splits = tuple((axis, mesh_shape[axis]) for axis in axes)
    shards = math.prod(count for _, count in splits)
    length = round(min(most, least + growth * math.log2(max(size, 1))), 1)
    every = math.ceil(_CLOSEST * shards / length)
    cuts = tuple(
        (round(length * at / shards, 1), _outermost_difference(at, splits))
        for at in range(every, shards, every)
    )
    return Side(name or "·", size, splits, length, max(round(length / shards, 1), 2), cuts)


def _outermost_difference(at: int, splits: tuple[tuple[str, int], ...]) -> str:
    """The axis along which shard `at` and the one before it are apart."""
    inner = 1
    for axis, size in reversed(splits):
        if at % (inner * size):
            return axis
        inner *= size
    return splits[0][0]


def _nested(
    axes: list[tuple[str, int]], places: dict[str, int], first: int
) -> tuple[float, float, list[Box]]:
    """(width, height, boxes) of the devices that have these places, of which `first` is the first."""
    if not axes:
        at = ", ".join(f"{axis} {place}" for axis, place in places.items())
        axis = next(reversed(places), "")
        return 30, 24, [Box(0, 0, 30, 24, axis, str(first), f"device {first}: {at or 'alone'}", device=True)]
    (axis, size), inner = axes[0], axes[1:]
    count = math.prod(size for _, size in inner)
    # Rows of devices, columns of rows, rows of columns, …, sixteen in a line.
    columns = min(size, 16) if len(inner) % 2 == 0 else math.ceil(size / 16)
    boxes, widest, tallest = [], 0.0, 0.0
    for place in range(size):
        width, height, inside = _nested(inner, {**places, axis: place}, first + place * count)
        if inner:
            label = f"{axis} {place}"
            named = [_moved(box, 7, 18) for box in inside]
            width, height = max(width + 14, _CHARACTER * len(label) + 14), height + 25
            inside = [Box(0, 0, width, height, axis, label, label), *named]
        row, column = divmod(place, columns)
        boxes += [_moved(box, column * (width + 6), row * (height + 6)) for box in inside]
        widest, tallest = (
            max(widest, column * (width + 6) + width),
            max(tallest, row * (height + 6) + height),
        )
    return widest, tallest, boxes


def _moved(box: Box, x: float, y: float) -> Box:
    return dataclasses.replace(box, x=round(box.x + x, 1), y=round(box.y + y, 1))
