"""Which code an instruction comes from, and in which part of the training step it runs."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mjx.models.common.pattern import EXCHANGE
from mjx.plan.program.hlo import Frame, Instruction, Program

Part = Literal["forward", "recompute", "backward", "update"]
PACKAGE = Path(__file__).resolve().parents[2]
_PLUMBING = ("models/common/linear.py", "sharding/constrain.py")
"""Files that every layer calls: where in them says nothing of who asked."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """A line of code, and the part of the step."""

    code: str
    """"models/common/mlp.py:88 MLP.__call__"; JAX's own name for it where no line is known."""
    part: Part
    exchange: str = ""
    """The `Exchange` that a collective belongs to; empty: to none."""


def origin_of(program: Program, instruction: Instruction) -> Origin:
    """Of an instruction; where XLA kept nothing (what it made or combined itself), of what it works on."""
    noted = _noted(program, instruction, depth=4)
    if not noted:
        return Origin(f"XLA ({instruction.opcode})", "update")
    codes = list(dict.fromkeys(code_line(program.stack(source)) or _argument(source) for source in noted))
    shown = codes[0] if len(codes) == 1 else f"{codes[0]} and {len(codes) - 1} more"
    named = re.search(rf"\b{re.escape(EXCHANGE)}(\w+)", noted[0].op_name)
    return Origin(shown, part_of(noted[0].op_name), named.group(1) if named else "")


def part_of(op_name: str) -> Part:
    """JAX's transformations are in the path: `rematted_computation`, `transpose(jvp())`, `jvp()`."""
    if "rematted_computation" in op_name:
        return "recompute"
    if re.search(r"transpose\(", op_name):
        return "backward"
    return "forward" if "jvp(" in op_name else "update"


def code_line(stack: Sequence[Frame]) -> str:
    """The innermost line that says who asked; empty without frames."""
    chosen = None
    for frame in stack:
        path = _within(frame.file)
        if path in _PLUMBING:
            continue
        chosen = chosen or frame
        if path.startswith("models/"):
            chosen = frame
            break
    if chosen is None:
        chosen = stack[0] if stack else None
    if chosen is None:
        return ""
    return f"{_within(chosen.file)}:{chosen.line} {_qualified(chosen)}"


def functions(stack: Sequence[Frame]) -> tuple[str, ...]:
    """ "models/common/mlp.py MLP.__call__" of each frame of the model's code, innermost first."""
    named = ((_within(frame.file), _qualified(frame)) for frame in stack)
    return tuple(
        f"{file} {name}" for file, name in named if file.startswith("models/") and file not in _PLUMBING
    )


def _qualified(frame: Frame) -> str:
    return frame.function.replace(".<locals>", "")


def _argument(instruction: Instruction) -> str:
    """ "decoder.segments.0.0.attention.output.kernel" of `state.parameters['decoder']['segments'][…`."""
    keys = re.findall(r"\['([^']+)'\]", instruction.op_name)
    named = instruction.op_name.startswith("state.") and keys
    return ".".join(keys) if named else instruction.op_name


def _within(file: str) -> str:
    """Relative to mjx where it belongs to it, else the file's name."""
    path = Path(file)
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else path.name


def _noted(program: Program, instruction: Instruction, depth: int) -> list[Instruction]:
    """The nearest instructions with a name of JAX's, itself first, then what it reads."""
    if "stack_frame_id=" in instruction.attributes or instruction.op_name:
        return [instruction]
    if depth == 0:
        return []
    found = []
    for index in range(len(instruction.operands)):
        source = program.operand(instruction, index)
        if source is not None:
            found += _noted(program, source, depth - 1)
    return found
