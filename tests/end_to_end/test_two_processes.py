"""`mjx launch -n 2`: two processes are one run."""

import json
import re
import signal
import time
from pathlib import Path

import pytest
from running import (
    assert_same_bits,
    losses,
    mjx,
    parameters,
    saved_arrays,
    saved_steps,
    start_mjx,
    wait_for_steps,
)

FAULTS = str(Path(__file__).parent / "faults")
MESH = ("runtime.cpu_devices=4", "mesh.data=2", "mesh.tensor=4", "training.evaluation_rows=0")


@pytest.fixture(scope="module")
def pair(run_once, shared):
    """The first ten steps in two processes of four devices, the samples each read, and what they said."""
    notes = shared / "notes"
    notes.mkdir(exist_ok=True)
    fault = {"path": FAULTS, "MJX_TEST_FAULT": "record", "MJX_TEST_NOTES": str(notes)}
    run, said = run_once("pair", "training.stop_at=10", *MESH, launch=("launch", "-n", 2, "--"), **fault)
    read = [
        [json.loads(line) for line in (notes / f"{process}.jsonl").read_text().splitlines()]
        for process in range(2)
    ]
    return run, read, said


def test_two_processes_have_the_losses_of_one_device_to_1e_5_and_its_parameters_to_1e_4(pair, undisturbed):
    run, _, _ = pair
    expected = [entry for entry in losses(undisturbed) if entry[0] <= 10]
    assert [step for step, _ in losses(run)] == list(range(1, 11))
    assert dict(losses(run)) == pytest.approx(dict(expected), rel=1e-5)
    mine, theirs = parameters(saved_arrays(run, 10)), parameters(saved_arrays(undisturbed, 10))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value == pytest.approx(theirs[name], abs=1e-4), name


def test_each_process_reads_its_rows_and_no_others(pair):
    _, read, _ = pair
    for process, samples in enumerate(read):
        rows = range(8 * process, 8 * process + 8)
        # It may have read ahead of the last step.
        assert len(samples) >= 10
        assert samples == [[16 * step + row for row in rows] for step in range(len(samples))]


def test_only_the_first_process_shows_steps(pair):
    _, _, said = pair
    lines = said.splitlines()
    assert sum(line.startswith("[0] step ") for line in lines) == 10
    assert [line for line in lines if line.startswith("[1]")] == []


def test_a_signal_stops_both_after_the_same_step_and_they_go_on_bit_by_bit(recipe, pair, tmp_path):
    run = tmp_path / "stopped"
    arguments = ("launch", "-n", 2, "--", "train", recipe, f"run_dir={run}", "training.stop_at=10", *MESH)
    with start_mjx(*arguments) as launcher:
        wait_for_steps(run, 2, launcher)
        launcher.send_signal(signal.SIGTERM)
        _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, said
    (step,) = saved_steps(run)
    assert 2 <= step <= 10
    assert f"SIGTERM: saved step {step}" in said
    mjx(*arguments)
    assert losses(run) == losses(pair[0])
    assert_same_bits(saved_arrays(run, 10), saved_arrays(pair[0], 10))


def test_an_error_in_one_process_ends_both_within_20_seconds_and_shows_where(recipe, tmp_path):
    notes, run = tmp_path, tmp_path / "failing"
    arguments = ("launch", "-n", 2, "--", "train", recipe, f"run_dir={run}", *MESH)
    ended = mjx(*arguments, code=1, path=FAULTS, MJX_TEST_FAULT="raise", MJX_TEST_NOTES=str(notes))
    assert time.time() - float((notes / "raised").read_text()) < 20
    assert "[1] mjx: process 1 of 2" in ended.stderr
    assert "in failing_step" in ended.stderr
    assert "RuntimeError: the fourth step was told to fail" in ended.stderr
    # Process 0 hears of it from process 1, or from the collective in which it was left alone.
    assert re.search(r"process 0 ends because process 1 did|before process 0, process 1 failed", ended.stderr)
    assert saved_steps(run) == []


def test_a_sample_that_one_process_cannot_make_does_not_fail_the_run_nor_hold_it_up(recipe, tmp_path):
    run = tmp_path / "sampled"
    sampled = "training.prompts=[mesh]"
    arguments = ("launch", "-n", 2, "--", "train", recipe, f"run_dir={run}", sampled, *MESH)
    ended = mjx(*arguments, path=FAULTS, MJX_TEST_FAULT="sample")
    assert "The run is done and saved, but not sampled from: MemoryError: no room" in ended.stderr
    # Process 0 hears of it, or finds itself alone in the collective.
    heard = r"process 0 ends because process 1 did: all is saved|\[0\] .*The run is done and saved"
    assert re.search(heard, ended.stderr)
    assert saved_steps(run) == [10, 20]
    assert not (run / "sample.txt").exists()
    mjx(*arguments)
    assert (run / "sample.txt").read_text().startswith("mesh")
