"""What a loop carries: XLA names the loop, and the code that is asked for stands inside or before it."""

from mjx.plan.program.hlo import Instruction, Program, element


def source_of(program: Program, instruction: Instruction, index: str) -> Instruction:
    """What makes a value: inside of the loop that writes it turn by turn, else before those that only pass it
    on. `index` is its place in the instruction's result."""
    for _ in range(8):
        loop, place = _carrier(program, instruction, index)
        if loop is None:
            return instruction
        made = _written(program, loop, place)
        if made is not None:
            return made
        carried = program.operand(loop, 0)
        source = None if carried is None or carried.opcode != "tuple" else program.operand(carried, place)
        if source is None:
            return instruction
        instruction, index = source, ""
    return instruction


def _carrier(program: Program, instruction: Instruction, index: str) -> tuple[Instruction | None, int]:
    """The loop that carries a value, and at which place."""
    place = index.split(",")[0]
    if instruction.opcode == "get-tuple-element":
        taken, source = element(instruction), program.operand(instruction, 0)
        return _carrier(program, source, str(taken)) if source is not None else (None, 0)
    if not place.isdigit():
        return None, 0
    if instruction.opcode == "while":
        return instruction, int(place)
    if instruction.opcode != "parameter":
        return None, 0
    loops = (i for body in program.computations.values() for i in body.values() if i.opcode == "while")
    return next((i for i in loops if i.called("body") == instruction.computation), None), int(place)


def _written(program: Program, loop: Instruction, place: int) -> Instruction | None:
    """What a turn of a loop puts there; None where it leaves what was there before."""
    turned = program.root(loop, "body")
    if turned is None or turned.opcode != "tuple":
        return None
    found, fusions, seen = program.operand(turned, place), [], {place}
    while found is not None:
        if found.opcode == "fusion":
            fusions.append(found)
            found = program.root(found, "calls")
        elif found.opcode == "dynamic-update-slice":
            found = program.operand(found, 1)
        elif found.opcode in ("bitcast", "copy", "reshape"):
            found = program.operand(found, 0)
        elif found.opcode == "parameter" and fusions:
            found = program.operand(fusions.pop(), int(found.arguments))
        elif found.opcode == "get-tuple-element":
            taken, source = element(found), program.operand(found, 0)
            if source is None or taken is None:
                return None
            if source.opcode == "while":
                return _written(program, source, taken)
            if source.opcode == "fusion":
                fusions.append(source)
                root = program.root(source, "calls")
                found = None if root is None else program.operand(root, taken)
            elif source.opcode != "parameter":
                return found
            elif taken in seen:
                return None
            else:  # stored as the turn began with it: what the turn before has made
                seen.add(taken)
                found = program.operand(turned, taken)
        else:
            return None if found.opcode == "parameter" else found
    return None
