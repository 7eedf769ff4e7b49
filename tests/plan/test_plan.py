"""`mjx plan`: what it says is right, nothing that does not fit is said to fit, and it is quick."""

import dataclasses
import html.parser
import json
import re

import pytest
from planning import LLAMA, recipe, request

from mjx.cli import main
from mjx.errors import InputError
from mjx.gpus.data_sheet import data_sheet
from mjx.plan import apart
from mjx.plan.advice import advice
from mjx.plan.apart import CompilerDiedError, plan
from mjx.plan.read_step import Plan
from mjx.plan.report.words import verdict

LLAMA3 = {"family": "gpt", "preset": "llama3-8b", "remat": "full", "loss_chunks": 16}
AS_MEASURED = {"data": {"corpus": "python-docs", "sequence_length": 8192}}
"""Sequence 8192, one sequence per device, full recomputation."""

HEADLINES = {
    # (preset, nodes, mesh, GB inside of nodes, GB between, GiB of temporaries): the better of MaxText 0.2.5
    # and a small step written by hand, compiled the same way.
    "8B, fsdp 64": ("llama3-8b", 8, ("mesh.fsdp=64",), 0.0, 43.5, 6.6),
    "8B, fsdp 8 × tensor 8": ("llama3-8b", 8, ("mesh.fsdp=8", "mesh.tensor=8"), 167.5, 6.1, 9.7),
    "70B, fsdp 64 × tensor 8": ("llama3-70b", 64, ("mesh.fsdp=64", "mesh.tensor=8"), 831.0, 53.6, 20.5),
}


@pytest.mark.gpu_compile
@pytest.mark.parametrize("name", HEADLINES)
def test_the_step_sends_and_holds_no_more_than_it_must(name, tmp_path, planned):
    preset, nodes, mesh, node, network, temporaries = HEADLINES[name]
    path = recipe(tmp_path, LLAMA3 | {"preset": preset}, **AS_MEASURED)
    made = planned(path, f"training.batch_size={8 * nodes}", *mesh, nodes=nodes)
    bound = sum(check.closed_form for check in made.checks)
    sent = sum(row.wire_bytes for row in made.traffic)
    assert sent <= 1.10 * bound
    for check in made.checks:
        assert check.compiled <= 1.10 * check.closed_form, check
    assert made.wire_bytes("node") <= node * 1e9
    assert made.wire_bytes("network") <= network * 1e9
    assert made.memory.allocated <= temporaries * 2**30
    assert made.memory.allocated <= 1.25 * made.memory.closed_form
    whole = [row.wire_bytes for row in made.traffic if "bf16" not in row.arrays]
    assert sum(whole) < 1e-3 * sent, "bfloat16 is sent; in float32 gradients of gains, and scalars"


@pytest.mark.gpu_compile
def test_512_gpus_are_planned_in_little_memory(tmp_path, planned):
    preset, nodes, mesh, *_ = HEADLINES["70B, fsdp 64 × tensor 8"]
    path = recipe(tmp_path, LLAMA3 | {"preset": preset}, **AS_MEASURED)
    made = planned(path, f"training.batch_size={8 * nodes}", *mesh, nodes=nodes)
    assert made.devices == 512
    assert made.peak_memory < 3e9


@pytest.mark.gpu_compile
def test_the_memory_of_a_gpu_adds_up_and_the_verdict_flips_with_the_limit(tmp_path, planned):
    path = recipe(tmp_path)
    made = planned(path)
    memory = made.memory
    shards = 16
    assert memory.parameters == pytest.approx(4 * made.parameters / shards, rel=0.01)
    assert memory.optimizer == pytest.approx(2 * memory.parameters, rel=0.01)
    assert memory.batch == 3 * 4 * 4 * 2048, "tokens, labels, mask: 4 rows of 2048"
    assert memory.arguments == pytest.approx(memory.parameters + memory.optimizer + memory.batch, rel=1e-3)
    assert memory.kept == 4 * 4 * 2048 * 1024 * 2, "the residual stream in front of each layer, bfloat16"
    assert memory.needed == (
        memory.parameters
        + memory.optimizer
        + memory.batch
        + memory.gradients
        + memory.kept
        + memory.temporaries
        + memory.workspace
    )
    assert memory.fits
    assert not dataclasses.replace(memory, pool=memory.needed - 1).fits
    assert dataclasses.replace(memory, pool=memory.needed).fits
    assert not dataclasses.replace(memory, total=memory.pool + memory.reserve - 1).fits

    # And with a limit that is compiled for: its fraction is lowered until the step is refused.
    fraction = 0.9
    while (tried := planned(path, f"runtime.gpu_memory_fraction={fraction}")).memory.fits:
        assert tried.memory.needed <= tried.memory.pool
        fraction /= 64
        assert fraction > 1e-4
    assert tried.memory.needed > tried.memory.pool
    said = advice(tried, request(path, f"runtime.gpu_memory_fraction={fraction}"))
    assert any("gpu_memory_fraction" in sentence for sentence in said)


@pytest.mark.gpu_compile
def test_flops_are_those_of_the_model_s_own_counter_and_of_recomputation(tmp_path, planned):
    path = recipe(tmp_path)
    without = planned(path, "model.remat=none", products="cublas").flops
    matrices = 2 * (4 * (3 * 1024 * 1024 + 3 * 1024 * 2816) + 1024 * 32768)
    tokens = 64 * 2048 / 16
    assert without.compiled - without.attention == 3 * matrices * tokens
    assert without.attention == 3.5 * 4 * 4 * 4 * 16 * 2048 * 2048 * 64 / 2
    assert without.compiled == pytest.approx(without.model, rel=0.1)
    full = planned(path).flops
    again = 2 * 4 * (3 * 1024 * 1024 + 2 * 1024 * 2816) * tokens  # of the last product no gradient has need
    assert full.compiled - full.attention == 3 * matrices * tokens + again
    assert full.model == without.model


@pytest.mark.gpu_compile
def test_what_multiplies_changes_nothing_of_what_is_sent_and_what_needs_more_is_planned(tmp_path, planned):
    both, cublas = (planned(recipe(tmp_path), products=products) for products in ("both", "cublas"))
    sent = [[(row.kind, row.axes, row.wire_bytes) for row in made.traffic] for made in (both, cublas)]
    assert sent[0] == sent[1]
    assert cublas.checks == both.checks
    assert cublas.memory.allocated <= both.memory.allocated


@pytest.mark.gpu_compile
def test_buffers_name_the_code_that_made_them(tmp_path, planned):
    # With a larger vocabulary, the step's peak is in the loss.
    made = planned(recipe(tmp_path), "model.vocab_size=16384", products="triton")
    assert len(made.memory.largest) == 10
    sizes = [buffer.bytes for buffer in made.memory.largest]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) <= made.memory.allocated
    codes = {buffer.code.partition(":")[0] for buffer in made.memory.largest}
    assert codes >= {
        "models/common/mlp.py",
        "models/common/stack.py",
        "models/common/token_model/cross_entropy.py",
    }
    assert not [buffer for buffer in made.memory.largest if "Stack._run" in buffer.code], "the scan's line"
    named = {buffer.name for buffer in made.memory.largest}
    assert named >= {"decoder.segments.0.1.mlp.written h", "decoder.segments.0.1.mlp"}
    assert [name for name in named if name.startswith("decoder.segments.0.0.attention")]
    (stream,) = [buffer for buffer in made.memory.largest if buffer.role == "kept"]
    assert stream.code.endswith(" Sublayer.join")
    kept = [buffer for buffer in made.memory.largest if buffer.role == "kept"]
    assert [buffer.array for buffer in kept] == ["bf16[4,4,2048,1024]"]


@pytest.mark.gpu_compile
def test_times_are_bytes_and_flops_at_the_given_rates(tmp_path, planned):
    made = planned(recipe(tmp_path), "mesh.fsdp=2", "mesh.tensor=8")
    assert made.time.at_peak == pytest.approx(made.flops.compiled / 989.4e12)
    assert made.time.compute == 2 * made.time.at_peak, "half of the peak, as a rule"
    assert made.time.node == pytest.approx(made.wire_bytes("node") / 450e9)
    assert made.time.network == pytest.approx(made.wire_bytes("network") / 50e9)
    assert made.time.exposed <= made.time.node + made.time.network
    assert made.time.estimate >= made.time.compute


def test_without_the_wheel_a_cpu_gives_exact_arguments_and_an_upper_bound(tmp_path, planned):
    path = recipe(tmp_path)
    overrides = ("mesh.fsdp=2", "mesh.tensor=8")
    by_cpu = planned(path, *overrides, compiler="cpu")
    assert not by_cpu.memory.exact
    assert by_cpu.memory.parameters == pytest.approx(4 * by_cpu.parameters / 16, rel=0.02)
    weights = next(check for check in by_cpu.checks if check.name == "weights")
    assert weights.compiled == pytest.approx(weights.closed_form, rel=0.1)
    for check in by_cpu.checks:
        assert check.compiled >= 0.95 * check.closed_form, "it sends at least what must be sent"
    large = [row for row in by_cpu.traffic if row.wire_bytes > 1e7]
    assert all("bf16" in row.arrays for row in large)


@pytest.mark.gpu_compile
def test_the_cpu_s_bound_holds_what_gpus_need(tmp_path, planned):
    path = recipe(tmp_path)
    by_cpu, by_gpu = (planned(path, compiler=compiler) for compiler in ("cpu", "gpu"))
    assert by_cpu.memory.parameters == by_gpu.memory.parameters
    assert by_cpu.memory.optimizer == by_gpu.memory.optimizer
    assert by_cpu.memory.batch == by_gpu.memory.batch
    assert by_cpu.memory.allocated >= by_gpu.memory.allocated
    assert sum(r.wire_bytes for r in by_cpu.traffic) >= 0.99 * sum(r.wire_bytes for r in by_gpu.traffic)


@pytest.mark.gpu_compile
def test_of_sequences_that_the_mesh_splits_keys_and_values_are_gathered(tmp_path, planned):
    overrides = ("mesh.fsdp=8", "mesh.context=2", "training.batch_size=16")
    made = planned(recipe(tmp_path), *overrides, products="cublas")
    of_context = {row.term for row in made.traffic if row.axes == ("context",)}
    assert of_context <= {"keys", "replicas"}
    check = next(check for check in made.checks if check.name == "keys")
    assert check.compiled == pytest.approx(check.closed_form, rel=0.01)
    with pytest.raises(InputError, match=r"'cudnn' .* offset"):
        planned(recipe(tmp_path), *overrides, "model.attention.implementation=cudnn")


@pytest.mark.gpu_compile
def test_the_command_prints_writes_json_and_a_page(tmp_path, capsys):
    path = recipe(tmp_path)
    files = ["--json", f"{tmp_path}/p.json", "--html", f"{tmp_path}/p.html"]
    main(["plan", path, "--nodes", "2", "--utilization", "0.25", "--products", "cublas", *files])
    printed = capsys.readouterr().out
    for words in (
        "fits: JAX takes",
        "kept for the backward pass",
        "reduce-scatter",
        "models/common/",
        "product by cublas",
    ):
        assert words in printed
    tree = json.loads((tmp_path / "p.json").read_text())
    assert tree["summary"]["fits"] is True
    assert tree["summary"]["needed_bytes"] > 0
    assert tree["time"]["compute"] == 4 * tree["time"]["at_peak"]
    assert {field.name for field in dataclasses.fields(Plan)} <= set(tree)
    page = (tmp_path / "p.html").read_text()
    html.parser.HTMLParser().feed(page)
    assert "<svg" in page
    assert "product by cublas: where measuring chooses otherwise" in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--gpu", "h1000"), r"gpu = 'h1000' is not known \(choose from a100, b200, h100, h200\)"),
        (("--nodes", "0"), "--nodes 0 must be positive"),
        (("--utilization", "2"), "--utilization 2.0 must be from 0.001 to 1"),
        (
            ("--products", "cublas", "--compiler", "cpu"),
            "--products cublas is a choice of XLA's CUDA compiler",
        ),
        (("--json", "nowhere/plan.json"), "there is no folder nowhere"),
        (("mesh.fsdp=3",), "the mesh does not fit: fsdp 3 = 3 devices, and 8 are here"),
        (("mesh.fdsp=8",), "mesh.fdsp"),
        (("--search", "--compile", "0"), "--compile 0 must be positive"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(arguments, sentence, tmp_path, capsys):
    path = recipe(tmp_path, mesh={"data": 1, "fsdp": 8})
    with pytest.raises(SystemExit) as ended:
        main(["plan", path, "--compiler", "cpu", *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(sentence, said)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("import os; os.abort()", r"the compiler for 2 × 8 h100 was ended by SIGABRT"),
        (
            "import os, sys; print('F0101 12:00:00.0 1 x.cc:1] size mismatch when packing', "
            "file=sys.stderr, flush=True); os.abort()",
            r"was ended by SIGABRT: size mismatch when packing \(another mesh",
        ),
        ("import sys; sys.exit('no more memory')", r"ended with status 1: no more memory"),
        (
            "import sys; sys.exit('E1128 1.0 2 x.cc:576] LLVM Fatal Error while compiling kernel: size "
            "mismatch\\nF1128 1.0 2 y.cc:44] *** Begin stack trace ***\\n*** End stack trace ***')",
            r"ended with status 1: size mismatch \(another mesh",
        ),
        ("raise RuntimeError('INTERNAL: no')", r"ended with status 1: RuntimeError: INTERNAL: no \(another"),
    ],
)
def test_a_compiler_that_dies_is_a_sentence(script, sentence, tmp_path, monkeypatch):
    child = apart.subprocess.run

    def run(command, **options):
        return child([command[0], "-c", script], **options)

    monkeypatch.setattr(apart.subprocess, "run", run)
    with pytest.raises(CompilerDiedError, match=sentence):
        plan(request(recipe(tmp_path)))


@pytest.mark.gpu_compile
@pytest.mark.parametrize("gpu", ["a100", "b200"])
def test_other_gpus_are_planned_with_their_own_memory(gpu, tmp_path, planned):
    options = {"gpu": gpu, "nodes": 1, "gpus_per_node": 4, "products": "cublas"}
    made = planned(recipe(tmp_path, LLAMA), "mesh.fsdp=4", **options)
    assert gpu.upper() in made.gpu.upper()
    assert made.devices == 4
    assert made.memory.total == data_sheet(gpu).memory
    assert made.time.at_peak == pytest.approx(made.flops.compiled / data_sheet(gpu).tensor_flops)


def test_an_upper_bound_that_is_too_large_is_no_verdict(tmp_path, planned):
    memory = planned(recipe(tmp_path), compiler="cpu").memory
    assert verdict(memory).startswith("fits: ")
    said = verdict(dataclasses.replace(memory, pool=memory.needed - 2**30))
    assert said.startswith("not known to fit: JAX takes ")
    assert "1.00 less than this upper bound; by the closed form" in said
