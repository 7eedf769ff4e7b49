"""Every shipped kernel, compiled for a GPU that is not here, and held against the report in the tree."""

import json

import pytest

from mjx.errors import InputError
from mjx.gpus.toolkit import toolkit
from mjx.kernels.shipped import Shipped, ShippedSources
from mjx.plan.kernels import report as kernel_report

TARGETS = {target.key: target for target in kernel_report.targets()}


ANEW = {
    "attention / pallas_triton / bfloat16, head_dim 64 / a100",
    "attention / mosaic / bfloat16, head_dim 64, full / h100",
    "selective_scan / triton / bfloat16, state 16 / a100",
}
"""Compiled whatever the report knows: one for each way from a program to its figures."""


@pytest.fixture(scope="module")
def versions():
    try:
        toolkit()
    except InputError as error:
        pytest.skip(str(error))
    return kernel_report.compilers()


def test_the_report_has_what_is_shipped_and_nothing_else():
    assert list(kernel_report.golden()["programs"]) == list(TARGETS)


def test_the_report_in_the_tree_is_of_kernels_without_a_fault():
    golden = kernel_report.golden()
    for key, program in golden["programs"].items():
        assert program["kernels"], key
        for name, figures in program["kernels"].items():
            target = TARGETS[key]
            assert not kernel_report.faults(name, figures, target.gpu, target.program), key


@pytest.mark.gpu_compile
@pytest.mark.parametrize("key", TARGETS)
def test_a_shipped_configuration_compiles_to_what_the_report_says(key, versions):
    """A program that is lowered to what the report was made of, and meets its compilers, is what it says."""
    target, golden = TARGETS[key], kernel_report.golden()
    if isinstance(target.program, ShippedSources):
        pytest.importorskip("jax_triton")
    found = kernel_report.examine(target, golden, versions, anew=key in ANEW)
    assert found.kernels.keys() == golden["programs"][key]["kernels"].keys()
    assert not any(kernel_report.remarks(found, golden, versions).values())


@pytest.mark.gpu_compile
def test_what_the_report_does_not_know_is_compiled_and_a_wrong_figure_of_it_found(versions, monkeypatch):
    target = TARGETS["attention / pallas_triton / bfloat16, head_dim 64 / a100"]
    right = kernel_report.golden()["programs"][target.key]["kernels"]
    monkeypatch.setattr(kernel_report, "compiled", lambda target, program: right)
    wrong = right | {"flash_attention_keys": right["flash_attention_keys"] | {"registers": 1}}

    def examine(program, versions_now=versions, **options):
        golden = {"compilers": versions, "programs": {target.key: {"kernels": wrong, **program}}}
        found = kernel_report.examine(target, golden, versions_now, **options)
        assert found.kernels == (right if found.compiled else wrong | found.kernels)
        said = kernel_report.remarks(found, golden, versions)
        assert bool(said["flash_attention_keys"]) == found.compiled
        assert not said["flash_attention_forward"]
        return found

    unknown = examine({"lowered": "another program's"})
    assert unknown.compiled
    assert examine({}).compiled
    known = {"lowered": unknown.lowered}
    assert not examine(known).compiled
    assert examine(known, versions | {"ptxas": "another"}).compiled
    assert examine(known, anew=True).compiled


SCAN = Shipped(configuration="", gpus=("h100",), tensor_cores=True, forward=("scan_forward",))
FIGURES = {
    "threads": 128,
    "registers": 200,
    "spilled": 0,
    "shared_memory": 49152,
    "resident_blocks": 2,
    "instructions": 1000,
    "tensor_core": {"HGMMA": 8},
    "serialized": False,
}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tensor_core": {"HMMA": 8}}, "scan_forward multiplies matrices without HGMMA on h100"),
        ({"spilled": 8}, "scan_forward spills 8 bytes of registers on h100"),
        ({"resident_blocks": 0}, "scan_forward does not fit on a multiprocessor of h100"),
        ({"serialized": True}, "scan_forward: ptxas serialised its wgmma instructions on sm_90a"),
    ],
)
def test_a_kernel_with_a_fault_is_named(change, sentence):
    (said,) = kernel_report.faults("scan_forward", FIGURES | change, "h100", SCAN)
    assert said.startswith(sentence)
    assert not kernel_report.faults("scan_forward", FIGURES, "h100", SCAN)


@pytest.mark.parametrize(
    ("change", "under_another_compiler"),
    [
        ({"registers": 201}, False),
        ({"registers": 199}, False),
        ({"registers": 221}, False),
        ({"instructions": 1251}, True),
        ({"shared_memory": 50000}, False),
        ({"resident_blocks": 1}, False),
        ({"tensor_core": {"HMMA": 8}}, True),
        ({"threads": 256}, True),
    ],
)
def test_a_kernel_that_differs_from_the_report_is_named(change, under_another_compiler):
    found = FIGURES | change
    assert kernel_report.differences("scan", found, FIGURES, same_compiler=True)
    assert (
        bool(kernel_report.differences("scan", found, FIGURES, same_compiler=False)) == under_another_compiler
    )


def test_the_report_reads_back_as_it_was_written():
    golden = kernel_report.golden()
    text = kernel_report.to_json(golden)
    assert json.loads(text) == golden
    assert text == kernel_report.GOLDEN.read_text(encoding="utf-8")
