"""Named workloads: the work in them, the time it needs on paper, and the time it takes."""

from types import SimpleNamespace

import jax
import pytest

from mjx import cli
from mjx.commands import bench
from mjx.errors import InputError
from mjx.gpus.data_sheet import data_sheet
from mjx.kernels.flash_attention.workloads import AttentionWorkload
from mjx.kernels.grouped_matmul.workloads import GroupedMatmulWorkload
from mjx.kernels.selective_scan.workloads import SelectiveScanWorkload
from mjx.kernels.ssd.workloads import SSDWorkload
from mjx.kernels.workload import Work
from mjx.models.backends import OPS
from mjx.plan.kernels import report as kernel_report
from mjx.plan.kernels.roofline import roofline, workloads
from mjx.plan.kernels.times import measure

SMALL = {
    "attention": AttentionWorkload(name="small", batch=1, sequence=64, heads=4, kv_heads=2, head_dim=16),
    "ssd": SSDWorkload(name="small", batch=1, sequence=128, heads=4, head_dim=8, groups=2, state=16),
    "selective_scan": SelectiveScanWorkload(name="small", batch=1, sequence=64, channels=8, state=4),
    "grouped_matmul": GroupedMatmulWorkload(name="small", rows=64, groups=4, inner=8, outer=16),
}


def test_every_op_has_named_workloads_of_its_own_shapes():
    assert {op for op, _ in workloads()} == set(OPS)
    for _, workload in workloads():
        out = jax.eval_shape(workload.function("xla"), **workload.arguments())
        assert out.dtype == workload.dtype


def test_attention_s_work_is_what_the_papers_count():
    """4 × 4096 tokens, 16 heads of 128, causal: tokamax's 0.484 ms are 568 TFLOP/s."""
    anchor = next(workload for op, workload in workloads() if op == "attention")
    forward, backward = anchor.work(backward=False), anchor.work(backward=True)
    assert forward.products == pytest.approx(4 * 4 * 16 * 4096**2 * 128 / 2, rel=1e-3)
    assert backward.products == pytest.approx(2.5 * forward.products)
    assert forward.products / 0.484e-3 == pytest.approx(568e12, rel=2e-3)
    assert anchor.published(backward=False).seconds == pytest.approx(0.484e-3, rel=2e-3)
    assert anchor.published(backward=True).seconds == pytest.approx(1.686e-3, rel=2e-3)


def test_ssd_s_work_is_what_the_papers_count():
    """128 heads of 64, state 128, 1 group, chunks of 64: 5.3 MFLOP and 33.8 kB a token."""
    anchor = next(workload for op, workload in workloads() if op == "ssd")
    tokens = anchor.batch * anchor.sequence
    work = anchor.work(backward=False)
    assert work.products / tokens == pytest.approx(5.3e6, rel=0.01)
    assert work.bytes / tokens == pytest.approx(33.8e3, rel=0.01)
    assert tokens / anchor.published(backward=False).seconds == pytest.approx(23.7e6)
    assert tokens / roofline(work, data_sheet("h100"), "bfloat16").memory == pytest.approx(99e6, rel=0.01)


def test_grouped_matmul_s_work_is_that_of_each_row_with_one_kernel():
    """tokamax's 2.737 ms for 393216 rows of 2048 to 768 are 452 TFLOP/s; its gradients 15.09 ms, 164."""
    anchor = next(workload for op, workload in workloads() if op == "grouped_matmul")
    forward, backward = anchor.work(backward=False), anchor.work(backward=True)
    assert forward.products / anchor.published(backward=False).seconds == pytest.approx(452e12, rel=2e-3)
    assert backward.products / anchor.published(backward=True).seconds == pytest.approx(164e12, rel=2e-3)
    assert anchor.sizes().sum() == anchor.rows
    assert roofline(forward, data_sheet("h100"), "bfloat16").bound == "products"


def test_a_window_has_less_work_than_the_whole_row():
    window = AttentionWorkload(
        name="", batch=1, sequence=1024, heads=1, kv_heads=1, head_dim=64, window=4, dtype="bfloat16"
    )
    pairs = 4 * 1024 - (1 + 2 + 3)
    assert window.work(backward=False).exps == pairs


@pytest.mark.parametrize(("head_dim", "teraflops"), [(64, 495), (128, 659), (256, 791)])
def test_the_roofline_of_attention_is_that_of_products_and_exponentials_in_turn(head_dim, teraflops):
    work = Work(products=4 * head_dim, exps=1, bytes=0)
    seconds = roofline(work, data_sheet("h100"), "bfloat16").needed
    assert work.products / seconds / 1e12 == pytest.approx(teraflops, rel=0.01)


@pytest.mark.parametrize("op", SMALL)
def test_implementations_are_timed_forward_and_backward(op):
    times = measure(SMALL[op], {name: (name, None) for name in ("xla", "reference")}, rounds=2)
    assert list(times) == ["xla", "reference"]
    for found in times.values():
        assert 0 < found.forward < 10
        assert 0 <= found.backward < 10


@pytest.mark.parametrize(("kind", "sheet"), [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H200", "H200")])
def test_a_gpu_is_measured_against_its_own_data_sheet(kind, sheet, capsys, monkeypatch):
    monkeypatch.setattr(bench, "current_device", lambda: ("gpu", 9.0))
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(device_kind=kind)])
    monkeypatch.setattr(bench, "workloads", lambda: iter(()))
    cli.main(["bench", "kernels"])
    assert f"on {kind}, against the data sheet of {sheet};" in capsys.readouterr().out


def test_an_h200_tries_the_block_configurations_that_compiled_for_the_h100():
    anchor = next(workload for op, workload in workloads() if op == "attention")
    found = bench._configurations("attention", anchor, "h200", 9.0)
    assert found.keys() == bench._configurations("attention", anchor, "h100", 9.0).keys()
    assert found
    assert not bench._configurations("attention", anchor, "b200", 10.0)


def test_without_a_gpu_measuring_is_refused_and_compiling_offered(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "kernels"])
    assert stopped.value.code == 2
    assert "no GPU to measure on (JAX runs on cpu here); --compile-only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--op", "atention"],
            "--op atention is not known (choose from attention, ssd, selective_scan, grouped_matmul)",
        ),
        (
            ["--compile-only", "--gpu", "v100"],
            "gpu = 'v100' is not known (choose from a100, b200, h100, h200)",
        ),
        (["--compile-only", "--sweep"], "--sweep measures, and --compile-only does not"),
    ],
)
def test_a_mistaken_request_is_refused_before_anything_is_compiled(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "kernels", *arguments])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(("gpu", "of"), [("h200", "h100"), ("a100", "a100"), ("b200", None)])
def test_compile_only_takes_what_is_shipped_for_the_architecture(gpu, of, capsys, monkeypatch):
    nothing = lambda target, *_, **__: kernel_report.Examined(target, "", {}, True)  # noqa: E731
    monkeypatch.setattr(kernel_report, "examine", nothing)
    monkeypatch.setattr(kernel_report, "compilers", dict)
    cli.main(["bench", "kernels", "--compile-only", "--gpu", gpu])
    printed = capsys.readouterr().out
    for target in kernel_report.targets():
        assert (target.key in printed) == (target.gpu == of)
    assert (f"no kernel of {', '.join(OPS)} is shipped for {gpu}" in printed) == (of is None)
    assert f"on {gpu.upper()}, by its data sheet" in printed


@pytest.mark.gpu_compile
def test_compile_only_prints_each_kernel_and_each_workload(capsys, monkeypatch, tmp_path):
    from mjx.gpus.toolkit import toolkit

    try:
        toolkit()
    except InputError as error:
        pytest.skip(str(error))
    first = next(kernel_report.targets())
    monkeypatch.setattr(kernel_report, "targets", lambda: iter([first]))
    cli.main(["bench", "kernels", "--compile-only", "--report", str(tmp_path / "report.json")])
    printed = capsys.readouterr().out
    assert first.key in printed
    assert "flash_attention_forward" in printed
    for _, workload in workloads():
        assert workload.name.partition(" ")[0] in printed
    monkeypatch.setattr(kernel_report, "GOLDEN", tmp_path / "report.json")
    monkeypatch.setattr(kernel_report, "targets", lambda: iter([first]))
    cli.main(["bench", "kernels", "--compile-only"])
    again = capsys.readouterr().out
    assert "1 of 1 programs are those of the report" in again
    assert again.partition("\n\n")[0] == printed.partition("\n\n")[0]
