"""XLA's program text, read: computations, instructions, how often each runs, and the code it comes from.

JAX has no public view of an optimized program but this text (`compiled.as_text()`, or a dump of XLA's).
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator

from mjx.models.rarely import RARELY

_BITS = {"pred": 8, "token": 0, "opaque": 0, "s4": 4, "u4": 4, "s2": 2, "u2": 2, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_COMMENT = re.compile(r"/\*.*?\*/")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$|^(ENTRY )?%?([\w.\-]+) \{$")
_NAME = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_FRAME = re.compile(r"^(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?\}")
_LOCATION = re.compile(r"^(\d+) \{file_name_id=(\d+) function_name_id=(\d+) line=(\d+)")
_QUOTED = re.compile(r'^(\d+) "(.*)"$')


@dataclasses.dataclass(frozen=True)
class ArrayType:
    """Element type and shape of one array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> float:
        """As stored, without padding."""
        bits = _BITS.get(self.dtype)
        if bits is None:
            bits = int(re.findall(r"\d+", self.dtype)[0])
        return math.prod(self.shape) * bits / 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclasses.dataclass(frozen=True)
class Frame:
    """One line of Python that traced an instruction."""

    file: str
    line: int
    function: str


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program."""

    name: str
    opcode: str
    results: tuple[ArrayType, ...]
    """A tuple's leaves, or the one array."""
    operands: tuple[str, ...]
    """Names."""
    arguments: str
    """What stands between the parentheses: of a constant, its value."""
    attributes: str
    """All that stands behind them."""
    computation: str
    root: bool
    """Whether it is what its computation returns."""

    @property
    def op_name(self) -> str:
        """JAX's path to it, "jit(step)/transpose(jvp())/while/body/dot_general"; empty if XLA kept none."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found.group(1).replace("\\'", "'") if found else ""

    def called(self, attribute: str) -> str | None:
        """The computation that an attribute names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found.group(1) if found else None


@dataclasses.dataclass(frozen=True)
class Execution:
    """An instruction and how often one run of the program executes it."""

    instruction: Instruction
    count: float
    asynchronous: bool
    """Whether it runs inside of an `async-start` or of another that starts."""
    exact: bool
    """False where a loop around it does not say how often it turns, and was counted once."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A whole module."""

    computations: dict[str, dict[str, Instruction]]
    entry: str
    frames: dict[int, tuple[Frame, int]]
    """Id → the frame, and the id of the one that called it (0: none)."""

    def executions(self, weight: Callable[[Instruction], float] = lambda _: 1.0) -> list[Execution]:
        """Every instruction that runs, loops multiplied out.

        Of a conditional the branch counts that weighs most: `weight` summed over its executions. Branches
        for rare cases are left out.
        """
        return list(self._run(self.entry, 1.0, False, True, weight))

    def stack(self, instruction: Instruction) -> list[Frame]:
        """The Python frames that traced it, innermost first; empty where XLA kept none."""
        found = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        number, frames = int(found.group(1)) if found else 0, []
        while number in self.frames and len(frames) < 100:
            frame, number = self.frames[number]
            frames.append(frame)
        return frames

    def operand(self, instruction: Instruction, index: int) -> Instruction | None:
        """What makes one of its operands."""
        if index >= len(instruction.operands):
            return None
        return self.computations[instruction.computation].get(instruction.operands[index])

    def operand_types(self, instruction: Instruction) -> tuple[ArrayType, ...]:
        """Of all its operands, tuples flattened."""
        known = self.computations[instruction.computation]
        return tuple(kind for name in instruction.operands for kind in known[name].results)

    def trip_count(self, loop: Instruction) -> int | None:
        """How often a `while` turns: as XLA noted, or as the constants say that its counter goes through."""
        noted = re.search(r'"known_trip_count":\s*\{"n":\s*"(\d+)"\}', loop.attributes)
        if noted:
            return int(noted.group(1))
        compared, turned = self.root(loop, "condition"), self.root(loop, "body")
        entered = self.operand(loop, 0)
        if compared is None or compared.opcode != "compare" or "direction=LT" not in compared.attributes:
            return None
        place = element(self.operand(compared, 0))
        if place is None or turned is None or entered is None or {turned.opcode, entered.opcode} != {"tuple"}:
            return None
        advanced = self.operand(turned, place)
        if advanced is None or advanced.opcode != "add" or element(self.operand(advanced, 0)) != place:
            return None
        start, step = self._constant(entered, place), self._constant(advanced, 1)
        limit = self._constant(compared, 1)
        if start is None or limit is None or step is None or step <= 0:
            return None
        return max(0, math.ceil((limit - start) / step))

    def root(self, caller: Instruction, attribute: str) -> Instruction | None:
        """What the computation returns that an attribute of `caller` names."""
        known = self.computations.get(caller.called(attribute) or "", {})
        return next((instruction for instruction in known.values() if instruction.root), None)

    def _constant(self, instruction: Instruction, index: int) -> int | None:
        """The whole number that one of its operands is."""
        found = self.operand(instruction, index)
        while found is not None and found.opcode in ("copy", "bitcast", "convert"):
            found = self.operand(found, 0)
        if found is None or found.opcode != "constant" or not re.fullmatch(r"-?\d+", found.arguments):
            return None
        return int(found.arguments)

    def _run(
        self,
        name: str,
        count: float,
        asynchronous: bool,
        exact: bool,
        weight: Callable[[Instruction], float],
    ) -> Iterator[Execution]:
        for instruction in self.computations.get(name, {}).values():
            yield Execution(instruction, count, asynchronous, exact)
            if instruction.opcode == "while":
                trips = self.trip_count(instruction)
                known, turns = exact and trips is not None, 1 if trips is None else trips
                for part, times in (("condition", turns + 1), ("body", turns)):
                    callee = instruction.called(part) or ""
                    yield from self._run(callee, count * times, asynchronous, known, weight)
            elif instruction.opcode == "conditional":
                branches = _branches(instruction)
                usual = [branch for branch in branches if not self._is_rare(branch)]
                runs = [
                    list(self._run(branch, count, asynchronous, exact, weight))
                    for branch in usual or branches
                ]
                yield from max(runs, key=lambda run: sum(weight(e.instruction) * e.count for e in run))
            elif instruction.opcode.removesuffix("-start") in ("call", "fusion", "async"):
                callee = instruction.called("calls") or instruction.called("to_apply") or ""
                inside = asynchronous or instruction.opcode.endswith("-start")
                yield from self._run(callee, count, inside, exact, weight)

    def _is_rare(self, computation: str) -> bool:
        """Whether its code says so of itself."""
        return any(f"/{RARELY}/" in i.op_name for i in self.computations[computation].values())


def parse_program(text: str) -> Program:
    """Read a module's text.

    Raises:
        ValueError: it has no entry computation.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    tables: dict[str, list[str]] = {}
    current, table, entry = "", "", ""
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = line
        elif line.startswith((" ", "\t")) and current:
            instruction = _instruction(line, current)
            if instruction is not None:
                known = computations[current]
                for name in instruction.operands:
                    if "#" in name:
                        known.setdefault(name, _taken(known, name))
                known[instruction.name] = instruction
        elif header := _HEADER.match(line):
            table, current = "", header.group(2) or header.group(4)
            computations[current] = {}
            entry = current if header.group(1) or header.group(3) else entry
        elif line.startswith("}"):
            current = ""
        elif table and line:
            tables.setdefault(table, []).append(line)
    if not entry:
        raise ValueError("the text has no ENTRY computation: it is not an HLO module")
    return Program(computations, entry, _frames(tables))


def _instruction(line: str, computation: str) -> Instruction | None:
    head = _NAME.match(line)
    if head is None:
        return None
    rest = line[head.end() :]
    end = _balanced(rest, 0) if rest.startswith("(") else rest.index(" ")
    opcode = _OPCODE.match(rest, end)
    if opcode is None:
        return None
    close = _balanced(rest, opcode.end() - 1)
    arguments = rest[opcode.end() : close - 1]
    names = re.findall(r"%([\w.\-]+(?:#\d+)?)", _COMMENT.sub("", arguments))
    return Instruction(
        name=head.group(2),
        opcode=opcode.group(1),
        results=_arrays(rest[:end]),
        operands=tuple(names),
        arguments=arguments,
        attributes=rest[close:],
        computation=computation,
        root=head.group(1) is not None,
    )


def _taken(known: dict[str, Instruction], name: str) -> Instruction:
    """`%loop#1`, which XLA's dumps write for `get-tuple-element(%loop), index=1`."""
    whole, index = name.split("#")
    source = known[whole]
    return Instruction(
        name=name,
        opcode="get-tuple-element",
        results=(source.results[int(index)],),  # a loop's tuple has no tuples in it
        operands=(whole,),
        arguments=f"%{whole}",
        attributes=f", index={index}",
        computation=source.computation,
        root=False,
    )


def _balanced(text: str, start: int) -> int:
    """The place behind the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] == "(":
            depth += 1
        elif text[place] == ")":
            depth -= 1
            if depth == 0:
                return place + 1
    raise ValueError(f"a parenthesis is not closed: {text[start : start + 80]}…")


@functools.lru_cache(maxsize=4096)
def _arrays(text: str) -> tuple[ArrayType, ...]:
    return tuple(
        ArrayType(dtype, tuple(int(size) for size in shape.split(",") if size))
        for dtype, shape in _ARRAY.findall(_COMMENT.sub("", text))
    )


def element(instruction: Instruction | None) -> int | None:
    """Which element of a tuple it takes."""
    if instruction is None or instruction.opcode != "get-tuple-element":
        return None
    found = re.search(r"\bindex=(\d+)", instruction.attributes)
    return int(found.group(1)) if found else None


def _branches(instruction: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if listed:
        return re.findall(r"%?([\w.\-]+)", listed.group(1))
    both = [instruction.called(f"{name}_computation") for name in ("true", "false")]
    return [name for name in both if name]


def _frames(tables: dict[str, list[str]]) -> dict[int, tuple[Frame, int]]:
    """The tables behind a module's header: names of files and functions, places, frames."""

    def quoted(table: str) -> dict[str, str]:
        lines = (_QUOTED.match(line) for line in tables.get(table, []))
        return {found.group(1): found.group(2) for found in lines if found}

    files, functions = quoted("FileNames"), quoted("FunctionNames")
    places = {}
    for line in tables.get("FileLocations", []):
        if found := _LOCATION.match(line):
            number, file, function, at = found.groups()
            places[number] = Frame(files.get(file, ""), int(at), functions.get(function, ""))
    frames = {}
    for line in tables.get("StackFrames", []):
        found = _FRAME.match(line)
        if found and found.group(2) in places:
            # The text counts parents from 1, and 1 means that there is none.
            frames[int(found.group(1))] = (places[found.group(2)], int(found.group(3) or 1) - 1)
    return frames
