"""The tables of all ops, and the command that prints them."""

import pytest

from mjx import cli
from mjx.kernels.capability import Request, choose
from mjx.models.backends import OPS


@pytest.mark.parametrize("name", OPS)
def test_every_op_has_a_reference_and_xla_which_can_do_everything_everywhere(name):
    op = OPS[name]()
    for platform in ("cpu", "gpu", "tpu"):
        for dtype in ("float32", "bfloat16"):
            request = Request(platform=platform, dtype=dtype, features=frozenset(op.features))
            for implementation in ("reference", "xla"):
                assert choose(name, op.table, implementation, request) == implementation
            assert choose(name, op.table, "auto", request) == "xla"


@pytest.mark.parametrize("name", OPS)
def test_no_implementation_claims_a_feature_that_the_op_does_not_know(name):
    op = OPS[name]()
    for row in op.table.values():
        assert row.features <= set(op.features)


def test_the_command_prints_every_op_with_its_features_and_what_is_chosen_here(capsys):
    cli.main(["backends"])
    printed = capsys.readouterr().out
    assert printed.startswith("here: cpu\n")
    for name, load in OPS.items():
        op = load()
        for word in (name, *op.table, *op.features):
            assert word in printed
    assert printed.count("auto takes, for float32: xla") == len(OPS)
    cells = {line.split("│")[1].strip(): line for line in printed.splitlines() if line.count("│") > 2}
    attention = OPS["attention"]().table.values()
    shown = [cell.strip() for cell in cells["soft-cap"].split("│")[2:-1]]
    assert shown == ["yes" if "soft-cap" in row.features else "–" for row in attention]
    assert {"yes", "–"} == set(shown)
