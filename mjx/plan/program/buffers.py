"""What lies in a GPU's memory at the step's peak, out of the reports that XLA writes beside a program.

Its buffer assignment says where in one large allocation every value lies, its live ranges say from when to
when. (The peak that XLA names in the latter is not the allocation's: it was lower by half where looked at.)
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Literal

import numpy as np

from mjx.plan.program.hlo import ArrayType, Instruction, Program
from mjx.plan.program.loops import source_of
from mjx.plan.program.origin import Origin, code_line, functions, origin_of, part_of

Role = Literal["kept", "gradient", "temporary"]
_ALLOCATION = re.compile(r"^allocation \d+: size (\d+)(.*)$")
_VALUE = re.compile(
    r"^ value: <\d+ ([\w.\-]+)(?:\{([\d,]*)\})?(?: \(\w+\))? @\d+> \(size=(\d+),offset=(\d+)\)"
)
_RANGE = re.compile(r"^    ([\w.\-]+)\{([\d,]*)\}:(\d+)-(\d+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Buffer:
    """One array that is alive at the peak, besides the step's arguments."""

    bytes: int
    array: str
    shape: tuple[int, ...]
    role: Role
    """kept: by the forward pass for the backward pass. gradient: of a parameter."""
    origin: Origin
    functions: tuple[str, ...]
    """Of the model's code, that made it, innermost first."""


@dataclasses.dataclass(frozen=True)
class _Value:
    name: str
    index: str
    size: int
    offset: int
    first: int
    last: int


def live_at_peak(
    assignment: str, ranges: str, program: Program, parameters: Iterable[ArrayType]
) -> list[Buffer]:
    """The buffers at the moment when they take the most room, largest first.

    `assignment` and `ranges` are XLA's `…-buffer-assignment.txt` and `…-live-range.txt`; `parameters` are the
    parameters' types on one device, which is what gradients look like.

    Raises:
        ValueError: the reports are not in a form that is known.
    """
    values = _temporaries(assignment, ranges)
    if not values:
        return []
    where = {i.name: i for body in program.computations.values() for i in body.values()}
    like_parameters = {(kind.dtype, tuple(sorted(kind.shape))) for kind in parameters}
    loops = _layer_loops(program)
    buffers = []
    for value in _distinct(values, _peak(values)):
        instruction = where.get(value.name)
        if instruction is None:
            continue
        array = _array(instruction, value.index, value.size)
        source = source_of(program, instruction, value.index)
        role: Role = "temporary"
        turns = loops.get(value.name) or loops.get(instruction.computation)
        if array is not None and turns is not None and turns in array.shape and len(array.shape) > 3:
            role = "kept"
        elif array is not None and (array.dtype, tuple(sorted(array.shape))) in like_parameters:
            role = "temporary" if _copies_argument(program, source) else "gradient"
        shown = str(array) if array else f"{value.size:,} bytes"
        shape = array.shape if array else ()
        buffers.append(
            Buffer(
                bytes=value.size,
                array=shown,
                shape=shape,
                role=role,
                origin=origin_of(program, source),
                functions=functions(program.stack(source)),
            )
        )
    return sorted(buffers, key=lambda buffer: -buffer.bytes)


def _temporaries(assignment: str, ranges: str) -> list[_Value]:
    """The values of the allocation that holds a step's temporaries, and of those that hold no argument."""
    spans = {(name, index): (int(a), int(b)) for name, index, a, b in _RANGE.findall(ranges)}
    if not spans:
        raise ValueError("XLA's live-range report lists no buffers")
    values, inside, base, end = [], False, 0, 0
    for line in assignment.splitlines():
        if head := _ALLOCATION.match(line):
            size, kind = int(head.group(1)), head.group(2)
            inside = not any(word in kind for word in ("parameter", "constant", "thread-local"))
            base, end = end, end + size * inside
        elif inside and (found := _VALUE.match(line)):
            name, index, size, offset = found.groups()
            span = spans.get((name, index or ""))
            if span is not None:
                values.append(_Value(name, index or "", int(size), base + int(offset), *span))
        elif not line.startswith(" "):
            inside = False
    return values


def _peak(values: list[_Value]) -> int:
    """The moment at which most bytes are covered; values that share their place count once."""
    ends = np.zeros(max(value.last for value in values) + 2)
    for value in values:
        ends[value.first] += value.size
        ends[value.last + 1] -= value.size
    upper = np.cumsum(ends)  # values that share a place counted twice: not below what is covered
    best, moment = -1, 0
    for candidate in np.argsort(-upper):
        if upper[candidate] <= best:
            break
        covered = sum(value.size for value in _distinct(values, int(candidate)))
        if covered > best:
            best, moment = covered, int(candidate)
    return moment


def _distinct(values: list[_Value], moment: int) -> list[_Value]:
    """The values that are alive, without those that lie in the place of a larger or an earlier one."""
    alive = [value for value in values if value.first <= moment <= value.last]
    chosen, end = [], -1
    for value in sorted(alive, key=lambda value: (value.offset, -value.size, value.first)):
        if value.offset >= end:
            chosen.append(value)
            end = value.offset + value.size
    return chosen


def _array(instruction: Instruction, index: str, size: int) -> ArrayType | None:
    """The leaf of its result that the buffer is; nested tuples are told apart by size."""
    leaves = instruction.results
    if index.isdigit() and int(index) < len(leaves) and leaves[int(index)].bytes == size:
        return leaves[int(index)]
    return next((leaf for leaf in leaves if leaf.bytes == size), None)


def _layer_loops(program: Program) -> dict[str, int]:
    """The forward loops that have a backward pass, and the computations inside of them → their turns."""
    loops = [i for body in program.computations.values() for i in body.values() if i.opcode == "while"]
    backward = {code_line(program.stack(i)) for i in loops if part_of(i.op_name) == "backward"}
    found = {}
    for loop in loops:
        turns = program.trip_count(loop)
        if turns and part_of(loop.op_name) == "forward" and code_line(program.stack(loop)) in backward:
            found[loop.name] = found[loop.called("body") or ""] = turns
    return found


def _copies_argument(program: Program, instruction: Instruction) -> bool:
    """Whether it is a parameter in another layout or dtype."""
    for _ in range(4):
        if instruction.computation != program.entry or len(instruction.operands) != 1:
            return False
        source = program.operand(instruction, 0)
        if source is None:
            return False
        if source.opcode == "parameter":
            return True
        instruction = source
    return False
