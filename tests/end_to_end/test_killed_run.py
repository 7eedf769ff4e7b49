"""A run that dies, politely or not, ends as if nothing had happened."""

import shutil
import signal
import subprocess
import sys

import pytest
from running import (
    ROOT,
    assert_same_bits,
    environment,
    losses,
    mjx,
    overrides,
    saved_arrays,
    saved_steps,
    start_mjx,
    validation_losses,
    wait_for_steps,
)

LONG = overrides(training__steps=60, training__evaluation_interval=20, checkpoint__interval=3)


@pytest.fixture(scope="module")
def long(run_once):
    """The folder of a run of 60 steps, long enough for a signal to meet it."""
    return run_once("long", *LONG)[0]


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(recipe, long, tmp_path):
    shutil.copytree(long, tmp_path / "undisturbed")  # finished: the script finds its losses there
    command = [ROOT / "benchmarks" / "kill_test.py", recipe, *LONG, "--kills", "3", "--folder", tmp_path]
    ended = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "killed 3 times: 60 steps" in ended.stdout
    assert "the same bits: 60 losses, each logged once" in ended.stdout
    run = tmp_path / "killed"
    assert validation_losses(run) == validation_losses(long)
    assert [step for step, _ in validation_losses(run)] == [20, 40, 60]


def test_sigterm_saves_exits_with_0_and_the_same_command_goes_on_bit_by_bit(recipe, long, tmp_path):
    run = tmp_path / "stopped"
    command = ("train", recipe, f"run_dir={run}", *LONG, "checkpoint.interval=1000")
    # Its own `timeout` passes a signal on twice: to the process, and to the group.
    with start_mjx(*command, through=("timeout", "300")) as process:
        wait_for_steps(run, 3, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    (step,) = saved_steps(run)
    assert 3 <= step < 60
    assert f"process 0 received SIGTERM: saved step {step}" in said
    assert f"stopped after step {step}; the same command resumes" in said
    assert "Traceback" not in said
    assert "loss curve" not in said
    assert losses(run)[-1][0] == step

    again = mjx(*command)
    assert f"resuming {run} at step {step}" in again.stderr
    assert losses(run) == losses(long)
    assert validation_losses(run) == validation_losses(long)
    assert_same_bits(saved_arrays(run, 60), saved_arrays(long, 60))
    assert (run / "loss.png").exists()


def test_ctrl_c_ends_with_130_and_leaves_the_last_checkpoint(recipe, long, tmp_path):
    run = tmp_path / "interrupted"
    with start_mjx("train", recipe, f"run_dir={run}", *LONG) as process:
        wait_for_steps(run, 8, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    newest = max(saved_steps(run))
    assert newest >= 3
    assert saved_arrays(run, newest)["step"] == newest
