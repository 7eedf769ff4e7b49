"""Which devices a collective joins, in every spelling that XLA prints."""

import math
import re

import numpy as np

Groups = list[tuple[int, ...]]

_LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, ?device_ids=\(([^)]*(?:\([^)]*\))?)\))? ?\{([^}]*)\}"
)
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
_AXIS = re.compile(r"""["']?([^"'=,:{} ]+)["']?(?::\((\d+)\)(\d+))?""")


def replica_groups(attributes: str, devices: int) -> Groups:
    """The groups of a collective out of an instruction's attributes; `{}` is one group of all devices.

    Raises:
        ValueError: a spelling that is not known, or groups that do not split the devices evenly.
    """
    if found := _LISTED.search(attributes):
        listed = re.findall(r"\{([\d,]*)\}", found.group(1))
        groups = [tuple(map(int, group.split(","))) for group in listed if group]
        groups = groups or [tuple(range(devices))]
    elif found := _IOTA.search(attributes):
        rows, columns, shape, order = found.groups()
        ids = _iota(shape, order).reshape(int(rows), int(columns))
        groups = [tuple(map(int, row)) for row in ids]
    elif found := _MESH.search(attributes):
        groups = _of_mesh(*found.groups())
    else:
        raise ValueError(f"no replica groups are known in: {attributes[:200]}")
    _check(groups, devices)
    return groups


def source_target_pairs(attributes: str) -> list[tuple[int, int]]:
    """Who sends to whom in a collective-permute.

    Raises:
        ValueError: there are none.
    """
    found = _PAIRS.search(attributes)
    if found is None:
        raise ValueError(f"no source_target_pairs are known in: {attributes[:200]}")
    pairs = re.findall(r"\{(\d+),(\d+)\}", found.group(1))
    return [(int(source), int(target)) for source, target in pairs]


def _of_mesh(axes: str, device_ids: str | None, grouped: str) -> Groups:
    """`mesh['a'=8,'b'=8], device_ids=([8,8]T(1,0)) {'a','b':(2)4}`.

    `'b':(2)4` is the part of b of size 4 whose outer part has size 2.
    """
    pairs = [text.rsplit("=", 1) for text in axes.split(",") if text]
    names = [name.strip().strip("'\"") for name, _ in pairs]
    sizes = [int(size) for _, size in pairs]
    ids = _device_ids(device_ids, math.prod(sizes))
    parts: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
    order: list[tuple[str, int]] = []  # (axis, size of what is outside of the part)
    for name, before, size in _AXIS.findall(grouped):
        whole = dict(zip(names, sizes, strict=True)).get(name, 0)
        part = (int(before), int(size)) if size else (1, whole)
        if not whole or whole % math.prod(part):
            raise ValueError(f"replica groups over {{{grouped}}} are not in their mesh [{axes}]")
        parts[name].append(part)
        order.append((name, part[0]))
    shape: list[int] = []
    place: dict[tuple[str, int], int] = {}  # the dimension that each grouped part becomes
    for name, size in zip(names, sizes, strict=True):
        outside = 1
        for before, length in sorted(parts[name]):
            if before > outside:
                shape.append(before // outside)
            place[name, before] = len(shape)
            shape.append(length)
            outside = before * length
        if size > outside:
            shape.append(size // outside)
    members = [place[key] for key in order]
    others = [dimension for dimension in range(len(shape)) if dimension not in members]
    count = math.prod(shape[dimension] for dimension in members)
    rows = ids.reshape(shape).transpose([*others, *members]).reshape(-1, count)
    return [tuple(map(int, row)) for row in rows]


def _device_ids(text: str | None, count: int) -> np.ndarray:
    """`None`, `3,2,1,0`, `[8,8]T(1,0)` or `[8,8]<=[64]T(…)`."""
    if text is None:
        return np.arange(count)
    found = re.fullmatch(r"(?:\[[\d,]+\]<=)?\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if found:
        return _iota(*found.groups()).reshape(-1)
    return np.array([int(number) for number in re.findall(r"\d+", text)])


def _iota(shape: str, order: str | None) -> np.ndarray:
    sizes = [int(size) for size in shape.split(",")]
    ids = np.arange(math.prod(sizes)).reshape(sizes)
    return ids if order is None else ids.transpose([int(axis) for axis in order.split(",")])


def _check(groups: Groups, devices: int) -> None:
    members = sorted(member for group in groups for member in group)
    sizes = {len(group) for group in groups}
    if members != list(range(devices)) or len(sizes) != 1:
        raise ValueError(
            f"replica groups of {sorted(sizes)} devices with {len(members)} members do not split "
            f"{devices} devices evenly"
        )
