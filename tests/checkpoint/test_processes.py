"""Several processes, each with some of the devices: one checkpoint, restored by any other number of them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("checkpoint_process.py")


def run(role: str, folder: Path, *, processes: int, devices: int) -> list[str]:
    """The lines of all processes that begin with a process index; fails where one of them fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, role, folder, *map(str, (port, processes, index, devices))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
        for index in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, stderr) in zip(started, outputs, strict=True):
        assert process.returncode == 0, stderr[-4000:]
    return [line for stdout, _ in outputs for line in stdout.splitlines() if line[:1].isdigit()]


@pytest.fixture(scope="module")
def saved_by_two(tmp_path_factory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("run") / "two"
    return folder, run("save", folder, processes=2, devices=2)


def test_two_processes_save_one_checkpoint_and_agree_on_it(saved_by_two):
    folder, lines = saved_by_two
    assert sorted(entry.name for entry in (folder / "checkpoints").iterdir()) == [".lock", "2", "3"]
    assert (folder / "config.yaml").read_text() == "x: 1\n"
    assert "0 lock True" in lines
    assert "1 lock False" in lines
    assert "0 latest 3" in lines
    assert "1 latest 3" in lines


def test_both_processes_raise_when_there_is_no_checkpoint(saved_by_two):
    _, lines = saved_by_two
    assert any(line.startswith("0 refused There is no checkpoint in") for line in lines)
    assert any(line.startswith("1 refused Process 0 refused to go on") for line in lines)


def test_one_process_restores_on_three_meshes_what_two_processes_saved(saved_by_two):
    folder, _ = saved_by_two
    lines = run("restore", folder, processes=1, devices=4)
    assert len(lines) == 4
    assert len(set(lines)) == 1
    assert lines[0].endswith("{'step': 3}")


def test_weights_saved_by_two_processes_are_read_by_orbax_alone(saved_by_two):
    from orbax.checkpoint.experimental import v1 as ocp

    folder, _ = saved_by_two
    weights = ocp.load(folder / "weights")
    drawn = np.random.default_rng(0).standard_normal((64, 32), np.float32)
    assert np.array_equal(weights["a"], 4 * drawn)


def test_nobody_takes_half_a_step_for_the_whole_when_the_disk_of_one_process_is_full(tmp_path):
    lines = run("full", tmp_path, processes=2, devices=2)
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name.isdecimal()) == ["1"]
    failed = {line[0]: line for line in lines if "failed" in line}
    assert "1 failed InputError The checkpoint of step 2 could not be written: File too large" in failed["1"]
    assert failed["0"].startswith("0 failed")
    refused = {line[0]: line for line in lines if "refused" in line}
    assert "is in use by a live run" in refused["0"]
    assert "Process 0 refused to go on" in refused["1"]
