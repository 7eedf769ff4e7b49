"""What a loop carries is traced to the code that makes it."""

import jax
import jax.numpy as jnp

from mjx.plan.program.hlo import parse_program
from mjx.plan.program.loops import source_of
from mjx.plan.program.origin import code_line


def body(x, w):
    y = jnp.tanh(x @ w)
    return y * 2, (x, jnp.sin(y))


def before(x):
    return jnp.cos(x)


def test_what_a_scan_stores_is_traced_to_the_line_inside_of_it():
    def whole(x, ws, unchanged):
        (x, kept), stored = jax.lax.scan(
            lambda carry, w: (lambda x, out: ((x, carry[1]), out))(*body(carry[0], w)),
            (before(x), unchanged * 3),
            ws,
        )
        return x, kept, stored

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((8, 16), (5, 16, 16), (8, 16))]
    program = parse_program(jax.jit(whole).lower(*shapes).compile().as_text())
    (loop,) = [i for i in program.computations[program.entry].values() if i.opcode == "while"]
    carried = program.operand(loop, 0)
    made = {}
    for place, kind in enumerate(carried.operands):
        shape = program.computations[program.entry][kind].results[0].shape
        made.setdefault(shape, set()).add(code_line(program.stack(source_of(program, loop, str(place)))))
    functions = {shape: {line.rpartition(" ")[2] for line in lines} for shape, lines in made.items()}
    assert functions[5, 8, 16] == {"body"}  # x as a turn began with it, and the sine
    assert "body" in functions[8, 16]
    assert not any("<lambda>" in name for name in functions[5, 8, 16])
