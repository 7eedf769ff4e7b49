"""The collectives of a compiled program: what is sent, between whom, how often, and whose code asked."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from mjx.plan.program.hlo import ArrayType, Execution, Instruction, Program
from mjx.plan.program.origin import Origin, origin_of
from mjx.plan.program.replica_groups import Groups, replica_groups, source_target_pairs

Kind = Literal[
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
]
_KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]
Reach = Literal["node", "network"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One collective instruction."""

    kind: Kind
    arrays: tuple[ArrayType, ...]
    """What a device sends into it: several where XLA combined several collectives."""
    group_size: int
    axes: tuple[str, ...]
    """The mesh axes along which its devices differ; empty where the groups are no product of axes."""
    reach: Reach
    """node: all of a group's devices are in one node."""
    count: float
    """Executions in one step."""
    exact: bool
    """False where a loop of unknown length was counted once."""
    wire_bytes: float
    """That each device sends in one step, all executions together, by a ring (Thakur et al. 2005)."""
    asynchronous: bool
    """Whether XLA may compute while it runs."""
    origin: Origin


def collectives(program: Program, mesh_shape: Mapping[str, int], devices_per_node: int) -> list[Collective]:
    """All of a program's, in the order of execution.

    `mesh_shape` is in the order of the mesh: devices are numbered through it, the last axis fastest.
    """
    devices = math.prod(mesh_shape.values())

    def weight(instruction: Instruction) -> float:
        if _kind(instruction) is None:
            return 0.0
        return _wire_bytes(program, instruction, max(map(len, _groups(instruction, devices))))

    return [
        _collective(program, execution, kind, mesh_shape, devices_per_node)
        for execution in program.executions(weight)
        if (kind := _kind(execution.instruction)) is not None
    ]


def bytes_by_reach(found: Iterable[Collective]) -> dict[Reach, float]:
    """Sent by each device in one step, inside of the node and across the network."""
    sums: dict[Reach, float] = {"node": 0.0, "network": 0.0}
    for collective in found:
        sums[collective.reach] += collective.wire_bytes
    return sums


def _kind(instruction: Instruction) -> Kind | None:
    name = instruction.opcode.removesuffix("-start")
    return name if name in _KINDS else None  # type: ignore[return-value]


def _groups(instruction: Instruction, devices: int) -> Groups:
    if _kind(instruction) == "collective-permute":
        return [tuple(pair) for pair in source_target_pairs(instruction.attributes)] or [(0,)]
    return replica_groups(instruction.attributes, devices)


def _collective(
    program: Program, execution: Execution, kind: Kind, mesh_shape: Mapping[str, int], devices_per_node: int
) -> Collective:
    instruction = execution.instruction
    groups = _groups(instruction, math.prod(mesh_shape.values()))
    size = max(map(len, groups))
    inside = all(len({member // devices_per_node for member in group}) == 1 for group in groups)
    sync = '"is_sync":true' in instruction.attributes
    started = instruction.opcode.endswith("-start") or execution.asynchronous
    return Collective(
        kind=kind,
        arrays=_sent(program, instruction),
        group_size=size,
        axes=_axes(groups, mesh_shape, partial=kind == "collective-permute"),
        reach="node" if inside else "network",
        count=execution.count,
        exact=execution.exact,
        wire_bytes=execution.count * _wire_bytes(program, instruction, size),
        asynchronous=started and not sync,
        origin=origin_of(program, instruction),
    )


def _sent(program: Program, instruction: Instruction) -> tuple[ArrayType, ...]:
    arrays = program.operand_types(instruction)
    if _kind(instruction) != "ragged-all-to-all":
        return arrays
    # It is also given the array to fill, offsets and sizes, which stay here. Of what it could send and what
    # there is room for, the smaller bounds what goes.
    return (min(arrays[:2], key=lambda array: array.bytes),)


def _wire_bytes(program: Program, instruction: Instruction, size: int) -> float:
    """That one device sends in one execution."""
    given = sum(array.bytes for array in _sent(program, instruction))
    share = (size - 1) / size
    match _kind(instruction):
        case "all-gather":
            return given * (size - 1)
        case "all-reduce":
            return 2 * given * share
        case "collective-permute":
            # Sending to oneself moves nothing; whoever sends, sends all.
            pairs = source_target_pairs(instruction.attributes)
            return given if any(source != target for source, target in pairs) else 0.0
        case "collective-broadcast":
            return given if size > 1 else 0.0
        case _:  # reduce-scatter and all-to-all: all but the own share (ragged: as if all were even)
            return given * share


def _axes(
    groups: Sequence[Sequence[int]], mesh_shape: Mapping[str, int], *, partial: bool
) -> tuple[str, ...]:
    """The mesh axes whose coordinate varies within the groups; `partial`: of a group's members not all."""
    sizes = tuple(mesh_shape.values())
    varying: set[str] = set()
    for group in groups:
        coordinates = np.array(np.unravel_index(np.array(group), sizes))
        for axis, values in zip(mesh_shape, coordinates, strict=True):
            if len(set(values.tolist())) > 1:
                varying.add(axis)
    axes = tuple(axis for axis in mesh_shape if axis in varying)
    whole = math.prod(mesh_shape[axis] for axis in axes) == max(len(group) for group in groups)
    return axes if whole or partial else ()
