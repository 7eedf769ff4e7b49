"""What lives where: one line per array, with its bytes on one device."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np
from rich.table import Table

from mjx.sharding.rules import Kind, Rules, axes_per_dimension
from mjx.words import readable_bytes, shape_words


@dataclasses.dataclass(frozen=True)
class Placement:
    """One array of a program on a mesh."""

    name: str
    axes: tuple[str | None, ...]
    shape: tuple[int, ...]
    dtype: str
    mesh_axes: tuple[tuple[str, ...], ...]
    """Per dimension, the mesh axes that split it."""
    local_shape: tuple[int, ...]
    """Of the part that one device holds."""
    code: str = ""
    """The line that makes it, where that is known."""

    @property
    def local_bytes(self) -> int:
        """On one device."""
        return math.prod(self.local_shape) * np.dtype(self.dtype).itemsize

    @property
    def total_bytes(self) -> int:
        """Of the whole array, counted once."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


Section = tuple[str, list[Placement]]
"""A heading and what stands under it."""


def place(
    name: str,
    axes: Sequence[str | None],
    leaf: jax.ShapeDtypeStruct | jax.Array,
    rules: Rules,
    mesh_shape: Mapping[str, int],
    kind: Kind,
    code: str = "",
) -> Placement:
    """Where one array lives.

    Raises:
        InputError: the rules cannot lay it out on this mesh.
    """
    spec = rules.spec(axes, leaf.shape, mesh_shape, kind=kind, array=f"{kind} {name}")
    split = axes_per_dimension(spec, len(leaf.shape))
    local = tuple(
        size // math.prod(mesh_shape[axis] for axis in names)
        for size, names in zip(leaf.shape, split, strict=True)
    )
    return Placement(name, tuple(axes), tuple(leaf.shape), np.dtype(leaf.dtype).name, split, local, code)


def parameter_table(title: str, placements: Iterable[Placement]) -> Table:
    """A rich table, with the sum of all."""
    rows = list(placements)
    out = _table(title)
    for row in rows:
        out.add_row(*_cells(row))
    total, local = sum(r.total_bytes for r in rows), sum(r.local_bytes for r in rows)
    out.add_row("total", f"{readable_bytes(total)} counted once", "", "", "", readable_bytes(local))
    return out


def activation_table(title: str, sections: Iterable[Section]) -> Table:
    """A rich table in sections; no sum, for activations do not live all at once."""
    out = _table(title)
    for section, placements in sections:
        out.add_row(section, style="bold")
        for row in placements:
            name, *cells = _cells(row)
            out.add_row(f"  {name}", *cells)
    return out


def _table(title: str) -> Table:
    out = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column, justify in (
        ("array", "left"),
        ("axes → mesh", "left"),
        ("shape", "right"),
        ("dtype", "left"),
        ("on a device", "right"),
        ("bytes", "right"),
    ):
        out.add_column(column, justify=justify, overflow="fold", no_wrap=column == "array")  # type: ignore[arg-type]
    return out


def _cells(row: Placement) -> tuple[str, ...]:
    arrows = (arrow(name, split) for name, split in zip(row.axes, row.mesh_axes, strict=True))
    shape, local = shape_words(row.shape), shape_words(row.local_shape)
    return row.name, ", ".join(arrows), shape, row.dtype, local, readable_bytes(row.local_bytes)


def arrow(name: str | None, split: tuple[str, ...]) -> str:
    """A logical axis and the mesh axes that split it."""
    return f"{name or '·'}→{'+'.join(split)}" if split else name or "·"
