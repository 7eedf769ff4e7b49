"""A program's fingerprint is that of what is computed, not of where it is written."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mjx
from mjx.errors import InputError
from mjx.gpus.target import device_of
from mjx.kernels.flash_attention import blocks
from mjx.kernels.flash_attention.mosaic import blocks as mosaic_blocks
from mjx.plan.kernels import report as kernel_report
from mjx.plan.kernels.lowered import fingerprint

pytestmark = pytest.mark.gpu_compile

PALLAS_TRITON = "attention / pallas_triton / bfloat16, head_dim 64 / a100"
MOSAIC = "attention / mosaic / bfloat16, head_dim 64, full / h100"
TRITON = "selective_scan / triton / bfloat16, state 16 / a100"
SCAN_KERNELS = "mjx.kernels.selective_scan.triton_kernels"


@pytest.fixture(autouse=True)
def compiler():
    try:
        device_of("a100")
    except InputError as error:
        pytest.skip(str(error))


def fingerprints(*keys):
    targets = {target.key: target for target in kernel_report.targets()}
    return {key: fingerprint(kernel_report.lowered(targets[key]), targets[key].gpu) for key in keys}


def test_lines_that_move_another_folder_and_another_process_leave_it_as_it_is(tmp_path):
    shutil.copytree(Path(mjx.__file__).parent, tmp_path / "mjx", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "mjx" / "kernels").rglob("*.py"):
        text = re.sub(r"^( *)(def|return)\b", r"\1# moved\n\n\1\2", path.read_text("utf-8"), flags=re.M)
        path.write_text(text, "utf-8")
    script = (
        "import json, sys, pathlib, mjx\n"
        "from mjx.plan.kernels import report\n"
        "from mjx.plan.kernels.lowered import fingerprint\n"
        "asked = [target for target in report.targets() if target.key in sys.argv]\n"
        "found = {each.key: fingerprint(report.lowered(each), each.gpu) for each in asked}\n"
        "print(json.dumps([str(pathlib.Path(mjx.__file__).parent.parent), found]))\n"
    )
    keys = [PALLAS_TRITON, MOSAIC]
    if importlib.util.find_spec("triton") is not None:
        keys.append(TRITON)
    done = subprocess.run(
        [sys.executable, "-c", script, *keys],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": "1"},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    folder, found = json.loads(done.stdout)
    assert folder == str(tmp_path)
    assert found == fingerprints(*keys)


@pytest.mark.parametrize(("key", "module"), [(PALLAS_TRITON, blocks), (MOSAIC, mosaic_blocks)])
def test_another_constant_of_a_kernel_is_another_program(key, module, monkeypatch):
    before = fingerprints(key)
    monkeypatch.setattr(module, "LOG2_E", 1.5)
    after = fingerprints(key)
    assert after != before
    monkeypatch.undo()
    assert fingerprints(key) == before


def test_another_constant_of_a_triton_kernel_is_another_program(tmp_path, monkeypatch):
    pytest.importorskip("triton")
    text = Path(importlib.util.find_spec(SCAN_KERNELS).origin).read_text("utf-8")  # type: ignore[union-attr, arg-type]
    changed = text.replace("tl.exp(delta * A)", "tl.exp(2 * delta * A)")
    assert changed != text
    (tmp_path / "changed.py").write_text(changed, "utf-8")
    before = fingerprints(TRITON)
    spec = importlib.util.spec_from_file_location("changed", tmp_path / "changed.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    monkeypatch.setitem(sys.modules, SCAN_KERNELS, module)
    assert fingerprints(TRITON) != before


def test_another_gpu_is_another_program():
    target = next(target for target in kernel_report.targets() if target.key == PALLAS_TRITON)
    program = kernel_report.lowered(target)
    assert fingerprint(program, "a100") != fingerprint(program, "h100")
