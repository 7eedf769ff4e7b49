"""XLA's text is read as it is meant: types, loops, branches, what starts, and the code it comes from."""

import inspect
import re

import jax
import jax.numpy as jnp
import pytest

from mjx.plan.program.hlo import ArrayType, Frame, parse_program
from mjx.plan.program.origin import PACKAGE, Origin, code_line, origin_of, part_of

# A loop in a loop, as the SPMD partitioner leaves them: no trip count is noted.
LOOPS = """
HloModule jit_f, entry_computation_layout={(bf16[64,16]{1,0})->bf16[64,16]{1,0}}, num_partitions=8

%inner_body (param: (s32[], bf16[64,16])) -> (s32[], bf16[64,16]) {
  %param = (s32[], bf16[64,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%param), index=0
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %x = bf16[64,16]{1,0} get-tuple-element(%param), index=1
  %sine = bf16[64,16]{1,0} sine(%x)
  ROOT %turned = (s32[], bf16[64,16]{1,0}) tuple(%next, %sine)
}

%inner_condition (param.1: (s32[], bf16[64,16])) -> pred[] {
  %param.1 = (s32[], bf16[64,16]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%param.1), index=0
  %ten = s32[] constant(10)
  %limit = s32[] copy(%ten)
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

%outer_body (param.2: (s32[], bf16[64,16])) -> (s32[], bf16[64,16]) {
  %param.2 = (s32[], bf16[64,16]{1,0}) parameter(0)
  %x.2 = bf16[64,16]{1,0} get-tuple-element(%param.2), index=1
  %three = s32[] constant(3)
  %entered = (s32[], bf16[64,16]{1,0}) tuple(%three, %x.2)
  %inner = (s32[], bf16[64,16]{1,0}) while(%entered), condition=%inner_condition, body=%inner_body
  %y = bf16[64,16]{1,0} get-tuple-element(%inner), index=1
  %j = s32[] get-tuple-element(%param.2), index=0
  %one = s32[] constant(1)
  %next.2 = s32[] add(%j, %one)
  ROOT %turned.2 = (s32[], bf16[64,16]{1,0}) tuple(%next.2, %y)
}

%outer_condition (param.3: (s32[], bf16[64,16])) -> pred[] {
  %param.3 = (s32[], bf16[64,16]{1,0}) parameter(0)
  %j.1 = s32[] get-tuple-element(%param.3), index=0
  %five = s32[] constant(5)
  ROOT %less.1 = pred[] compare(%j.1, %five), direction=LT
}

%called (param.4: bf16[64,16]) -> bf16[64,16] {
  %zero = s32[] constant(0)
  %param.4 = bf16[64,16]{1,0} parameter(0)
  %entered.1 = (s32[], bf16[64,16]{1,0}) tuple(%zero, %param.4)
  %outer = (s32[], bf16[64,16]{1,0}) while(%entered.1), condition=%outer_condition, body=%outer_body
  ROOT %z = bf16[64,16]{1,0} get-tuple-element(%outer), index=1
}

ENTRY %main_spmd (param.5: bf16[64,16]) -> bf16[64,16] {
  %param.5 = bf16[64,16]{1,0} parameter(0), sharding={devices=[8,1]<=[8]}
  ROOT %call = bf16[64,16]{1,0} call(%param.5), to_apply=%called
}
"""
NOTED = ', backend_config={"known_init_step":{"init":"0","step":"1"},"known_trip_count":{"n":"7"}}'


def counts(text, opcode):
    executions = parse_program(text).executions()
    return [(run.count, run.exact) for run in executions if run.instruction.opcode == opcode]


def test_loops_in_loops_turn_as_often_as_their_constants_say():
    assert counts(LOOPS, "sine") == [(5 * 4, True)]  # 3, 5, 7, 9
    assert counts(LOOPS, "while") == [(1, True), (5, True)]


def test_a_condition_is_asked_once_more_than_its_loop_turns():
    assert counts(LOOPS, "compare") == [(6, True), (5 * 5, True)]


def test_what_xla_notes_goes_before_the_constants():
    inner = "body=%inner_body"
    assert counts(LOOPS.replace(inner, inner + NOTED), "sine") == [(5 * 7, True)]


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("compare(%i.1, %limit), direction=LT", "compare(%i.1, %limit), direction=NE"),
        ("compare(%i.1, %limit), direction=LT", "compare(%limit, %i.1), direction=LT"),
        ("ROOT %less =", "ROOT %both = pred[] and(%less, %other)\n  %less ="),
        ("%ten = s32[] constant(10)", "%ten = s32[] parameter(1)"),
        ("%three = s32[] constant(3)", "%three = s32[] get-tuple-element(%param.2), index=0"),
        ("%next = s32[] add(%i, %two)", "%next = s32[] multiply(%i, %two)"),
        ("%next = s32[] add(%i, %two)", "%next = s32[] add(%two, %two)"),
        ("%two = s32[] constant(2)", "%two = s32[] constant(0)"),
    ],
    ids=["not less", "turned", "and more", "limit", "start", "no step", "no counter", "stands still"],
)
def test_a_loop_whose_length_the_data_decide_counts_once_and_is_not_exact(written, instead):
    assert LOOPS.count(written) == 1
    text = LOOPS.replace(written, instead)
    assert counts(text, "sine") == [(5, False)]
    assert counts(text, "while") == [(1, True), (5, True)]


def test_elements_of_tuples_may_be_written_short():
    """`%x#1`, as the dumps of later XLAs have it."""
    taken = re.compile(r"  %(\S+) = \S+ get-tuple-element\(%(\S+)\), index=(\d)\n")
    short = taken.sub("", LOOPS)
    for name, whole, index in taken.findall(LOOPS):
        short = re.sub(rf"%{re.escape(name)}(?=[,)])", f"%{whole}#{index}", short)
    assert "sine(%param#1)" in short
    assert "compare(%param.3#0, %five)" in short
    assert counts(short, "sine") == [(20, True)]
    program = parse_program(short)
    sine = program.computations["inner_body"]["sine"]
    assert list(map(str, program.operand_types(sine))) == ["bf16[64,16]"]


def test_a_loop_that_never_turns_counts_for_nothing():
    assert counts(LOOPS.replace("constant(10)", "constant(-10)"), "sine") == [(0, True)]


TYPES = """
HloModule types

ENTRY %main (a: f32[2]) -> f32[2] {
  %a = f32[2]{0} parameter(0), metadata={op_name="a"}
  %tiled = bf16[2,3,4,5]{3,2,1,0:T(8,128)(2,1)S(5)} custom-call(%a), custom_call_target="made (up)"
  %nested = ((f32[2]{0}, s32[]), (pred[7]{0}, /*index=1*/(u8[3]{0:T(256)}, token[]))) custom-call(\
f32[2]{0} %a, /*index=1*/bf16[2,3,4,5]{3,2,1,0:T(8,128)} %tiled), custom_call_target="x", \
metadata={op_name="f(\\"x\\")/(y)"}
  %limit.1 = f32[] constant(-1.5e+10)
  %list = s32[2,2]{1,0} constant({ { 1, 2 }, { 3, 4 } })
  ROOT %out-1.0 = f32[2]{0} negate(%a)
}
"""


def test_types_are_read_through_layouts_nested_tuples_and_comments():
    known = parse_program(TYPES).computations["main"]
    assert known["tiled"].results == (ArrayType("bf16", (2, 3, 4, 5)),)
    assert list(map(str, known["nested"].results)) == ["f32[2]", "s32[]", "pred[7]", "u8[3]", "token[]"]
    assert sum(array.bytes for array in known["nested"].results) == 8 + 4 + 7 + 3
    assert known["nested"].operands == ("a", "tiled")
    assert known["nested"].op_name == r"f(\"x\")/(y)"
    assert known["limit.1"].arguments == "-1.5e+10"
    assert known["list"].results == (ArrayType("s32", (2, 2)),)
    assert [name for name, instruction in known.items() if instruction.root] == ["out-1.0"]


BYTES = {"s4": 0.5, "f4e2m1fn": 0.5, "pred": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "f8e8m0fnu": 1}
BYTES |= {"bf16": 2, "f16": 2, "s32": 4, "f32": 4, "s64": 8, "f64": 8, "c64": 8, "c128": 16, "token": 0}


@pytest.mark.parametrize(("dtype", "size"), BYTES.items())
def test_an_element_has_the_bytes_that_it_is_stored_in(dtype, size):
    text = TYPES.replace("bf16[2,3,4,5]", f"{dtype}[2,3,4,5]")
    (array,) = parse_program(text).computations["main"]["tiled"].results
    assert (array.dtype, array.bytes) == (dtype, 120 * size)
    assert ArrayType(dtype, ()).bytes == size


STARTS = """
HloModule starts

%branch_0 (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %sine = f32[4]{0} sine(%p)
}

%branch_1 (p.1: f32[4]) -> f32[4] {
  %p.1 = f32[4]{0} parameter(0)
  %cosine = f32[4]{0} cosine(%p.1)
  ROOT %cosine.1 = f32[4]{0} cosine(%cosine)
}

%fused (p.2: f32[4]) -> f32[4] {
  %p.2 = f32[4]{0} parameter(0)
  ROOT %tangent = f32[4]{0} tan(%p.2)
}

%wrapped (p.3: f32[4]) -> f32[4] {
  %p.3 = f32[4]{0} parameter(0)
  ROOT %call = f32[4]{0} call(%p.3), to_apply=%branch_0
}, execution_thread="parallel"

ENTRY %main (p.4: f32[4], which: s32[]) -> f32[4] {
  %p.4 = f32[4]{0} parameter(0)
  %which = s32[] parameter(1)
  %branched = f32[4]{0} conditional(%which, %p.4, %p.4), BRANCHES
  %fusion = f32[4]{0} fusion(%branched), kind=kLoop, calls=%fused
  %fusion-start = ((f32[4]{0}), f32[4]{0}) fusion-start(%fusion), kind=kCustom, calls=%fused
  %fusion-done = f32[4]{0} fusion-done(%fusion-start)
  %async-start = ((f32[4]{0}), f32[4]{0}, s32[]) async-start(%fusion-done), calls=%wrapped
  ROOT %async-done = f32[4]{0} async-done(%async-start)
}
"""


@pytest.mark.parametrize(
    "branches",
    [
        "branch_computations={%branch_0, %branch_1}",
        "true_computation=%branch_0, false_computation=%branch_1",
    ],
)
def test_of_a_conditional_the_branch_that_weighs_most_counts(branches):
    program = parse_program(STARTS.replace("BRANCHES", branches))

    def run(weight):
        executions = program.executions(weight)
        return [e.instruction.name for e in executions if e.instruction.computation.startswith("branch")]

    assert run(lambda _: 1.0) == ["p.1", "cosine", "cosine.1", "p", "sine"]  # the last two: the call
    assert run(lambda instruction: float(instruction.opcode == "sine")) == ["p", "sine", "p", "sine"]


def test_what_starts_runs_asynchronously_with_all_that_it_calls():
    program = parse_program(STARTS.replace("BRANCHES", "branch_computations={%branch_0, %branch_1}"))
    seen = [(run.instruction.name, run.asynchronous) for run in program.executions()]
    assert [inside for name, inside in seen if name == "tangent"] == [False, True]
    assert ("call", True) in seen
    assert ("sine", True) in seen
    assert ("async-done", False) in seen


def test_operands_are_found_with_their_types():
    program = parse_program(STARTS)
    branched = program.computations["main"]["branched"]
    assert program.operand(branched, 0) is program.computations["main"]["which"]
    assert program.operand(branched, 3) is None
    assert list(map(str, program.operand_types(branched))) == ["s32[]", "f32[4]", "f32[4]"]
    done = program.computations["main"]["fusion-done"]
    assert list(map(str, program.operand_types(done))) == ["f32[4]", "f32[4]"]


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="has no ENTRY computation"):
        parse_program("func.func @main() { return }")


def block(x, w):
    return jnp.cos(jnp.sin(x @ w) @ w.T)


def loss(weights, x):
    def layer(carry, w):
        return jax.checkpoint(block)(carry, w), None

    return jnp.sum(jax.lax.scan(layer, x, weights)[0] ** 2)


def step(weights, x):
    gradient = jax.grad(loss)(weights, x)
    return weights - 0.1 * gradient


@pytest.fixture(scope="module")
def trained():
    shapes = jax.ShapeDtypeStruct((5, 64, 128), "float32"), jax.ShapeDtypeStruct((32, 64), "float32")
    return parse_program(jax.jit(step).lower(*shapes).compile().as_text())


def line(function, written):
    lines, first = inspect.getsourcelines(function)
    (found,) = (first + index for index, text in enumerate(lines) if written in text)
    return found


def test_a_product_s_frames_are_the_calls_that_led_to_it(trained):
    products = [run.instruction for run in trained.executions() if run.instruction.opcode == "dot"]
    assert products
    for product in products:
        stack = trained.stack(product)
        assert stack[0] == Frame(__file__, line(block, "return"), "block")
        assert Frame(__file__, line(loss, "scan"), "loss") in stack
        assert Frame(__file__, line(step, "grad(loss)"), "step") in stack
        functions = [frame.function for frame in stack]
        assert functions.index("loss") < functions.index("step") < functions.index("trained")
        assert code_line(stack) == f"test_hlo.py:{line(block, 'return')} block"


def test_products_run_forward_again_and_backward_and_the_update_at_the_end(trained):
    """Two products in a layer: twice for the output, four times for the gradients of both operands."""
    parts, updates = [], []
    for run in trained.executions():
        if run.instruction.opcode == "dot":
            assert (run.count, run.exact) == (5, True)
            parts.append(origin_of(trained, run.instruction).part)
        elif run.instruction.opcode == "subtract" and run.count == 1:
            updates.append(origin_of(trained, run.instruction))
    assert {part: parts.count(part) for part in parts} == {"forward": 2, "recompute": 2, "backward": 4}
    assert updates == [Origin(f"test_hlo.py:{line(step, 'return')} step", "update")]


@pytest.mark.parametrize(
    ("op_name", "part"),
    [
        ("jit(step)/jvp()/while/body/closed_call/dot_general", "forward"),
        ("jit(step)/jvp(Model)/transpose", "forward"),
        ("jit(step)/transpose(jvp())/while/body/checkpoint/rematted_computation/dot_general", "recompute"),
        ("jit(step)/transpose(jvp())/while/body/checkpoint/dot_general", "backward"),
        ("jit(step)/adamw/sub", "update"),
    ],
)
def test_the_part_of_the_step_is_in_jax_s_path(op_name, part):
    assert part_of(op_name) == part


def test_the_line_that_asked_is_the_model_s_and_not_the_plumbing_s():
    linear = Frame(f"{PACKAGE}/models/common/linear.py", 20, "Linear.__call__")
    kernel = Frame(f"{PACKAGE}/kernels/attention.py", 7, "attend.<locals>.forward")
    mlp = Frame(f"{PACKAGE}/models/common/mlp.py", 88, "MLP.__call__")
    loop = Frame(f"{PACKAGE}/run/loop.py", 3, "train")
    elsewhere = Frame("/somewhere/script.py", 1, "<module>")
    assert code_line([linear, mlp, loop]) == "models/common/mlp.py:88 MLP.__call__"
    assert code_line([kernel, linear, mlp, loop]) == "models/common/mlp.py:88 MLP.__call__"
    assert code_line([kernel, loop]) == "kernels/attention.py:7 attend.forward"
    assert code_line([linear]) == "models/common/linear.py:20 Linear.__call__"
    assert code_line([elsewhere, loop]) == "script.py:1 <module>"
    assert code_line([]) == ""


def test_what_xla_made_itself_comes_from_what_it_reads():
    program = parse_program(TYPES)
    known = program.computations["main"]
    assert origin_of(program, known["out-1.0"]) == Origin("a", "update")
    assert origin_of(program, known["list"]) == Origin("XLA (constant)", "update")
