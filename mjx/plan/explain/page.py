"""A page that draws what lives where: one file of HTML, with nothing outside it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mjx.plan.explain.drawing import draw, draw_mesh
from mjx.plan.explain.placement import Placement, Section, arrow
from mjx.sharding.axes import MESH_AXES
from mjx.words import readable_bytes, shape_words


def page(
    recipe: str,
    mesh: str,
    facts: Sequence[str],
    mesh_shape: Mapping[str, int],
    parameters: Sequence[Placement],
    activations_title: str,
    activations: Sequence[Section],
) -> str:
    """The HTML. `mesh` and `facts` are sentences that stand at the top."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"bytes": readable_bytes, "shape": shape_words}
    environment.globals |= {
        "arrow": arrow,
        "draw": lambda placement: draw(placement, mesh_shape),
        "copies": lambda placement: _copies(placement, mesh_shape),
    }
    template = environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    total, local = sum(p.total_bytes for p in parameters), sum(p.local_bytes for p in parameters)
    tables = [
        (
            "Parameters",
            f"{readable_bytes(total)} counted once, {readable_bytes(local)} on a device",
            [("", parameters)],
        ),
        (activations_title, "", activations),
    ]
    return template.render(
        recipe=recipe,
        mesh=mesh,
        facts=facts,
        mesh_axes=MESH_AXES,
        sizes={axis: size for axis, size in mesh_shape.items() if size > 1},
        devices=math.prod(mesh_shape.values()),
        mesh_drawing=draw_mesh(mesh_shape),
        split_by={
            "parameters": _split_by(parameters),
            "activations": _split_by(row for _, rows in activations for row in rows),
        },
        tables=tables,
    )


def _split_by(arrays: Iterable[Placement]) -> dict[str, list[str]]:
    """Mesh axis → the logical axes of these arrays that it splits."""
    found: dict[str, dict[str, None]] = {axis: {} for axis in MESH_AXES}
    for array in arrays:
        for name, axes in zip(array.axes, array.mesh_axes, strict=True):
            for axis in axes:
                found[axis][str(name)] = None
    return {axis: list(names) for axis, names in found.items()}


def _copies(placement: Placement, mesh_shape: Mapping[str, int]) -> str:
    """Over which mesh axes devices hold the same part."""
    split = {axis for axes in placement.mesh_axes for axis in axes}
    over = {axis: size for axis, size in mesh_shape.items() if size > 1 and axis not in split}
    if not over:
        return ""
    return f"{math.prod(over.values())} copies over {', '.join(over)}"
