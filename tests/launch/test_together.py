"""Two real processes on this machine: they meet, and they end together whatever happens to one of them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mjx.launch.connect import free_port
from mjx.launch.preemption import ECHO_SECONDS

PROGRAM = Path(__file__).parent / "programs" / "train.py"
ROOT = Path(__file__).parents[2]
END_SECONDS = 20
"""Within this time of one process's end all others must have ended."""


class Pair:
    """Two processes of the program, with their output in files."""

    def __init__(self, folder: Path, fault: str, **environment: str):
        self.folder = folder
        address = f"127.0.0.1:{free_port()}"
        self.processes = []
        for own in range(2):
            with (folder / f"{own}.out").open("w") as out, (folder / f"{own}.err").open("w") as err:
                place = {"MJX_COORDINATOR": address, "MJX_NUM_PROCESSES": "2", "MJX_PROCESS_ID": str(own)}
                path = {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, str(PROGRAM), fault, str(folder)],
                        env={**os.environ, **place, **path, **environment},
                        stdout=out,
                        stderr=err,
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def wait_for_steps(self) -> None:
        limit = time.monotonic() + 60
        while not all((self.folder / f"{own}.pid").exists() for own in range(2)):
            assert time.monotonic() < limit, self.error(0) + self.error(1)
            assert all(process.poll() is None for process in self.processes), self.error(0) + self.error(1)
            time.sleep(0.02)

    def codes(self) -> list[int]:
        """The exit codes; the second process must end within `END_SECONDS` of the first."""
        limit = time.monotonic() + 90
        ended = None
        while any(process.poll() is None for process in self.processes):
            if ended is None and any(process.poll() is not None for process in self.processes):
                ended = time.monotonic()
            assert ended is None or time.monotonic() < ended + END_SECONDS, self.error(0) + self.error(1)
            assert time.monotonic() < limit, self.error(0) + self.error(1)
            time.sleep(0.02)
        return [process.returncode for process in self.processes]

    def output(self, own: int) -> str:
        return (self.folder / f"{own}.out").read_text()

    def error(self, own: int) -> str:
        return (self.folder / f"{own}.err").read_text()


def test_two_processes_form_one_mesh_and_a_barrier_names_the_one_that_did_not_come(tmp_path):
    with Pair(tmp_path, "none") as pair:
        assert pair.codes() == [0, 0]
    assert "process 0 sum 4.0" in pair.output(0)
    assert "process 1 sum 4.0" in pair.output(1)
    assert "Barrier 'all': after 0.5 s process 1 had not arrived, of 2." in pair.output(0)
    assert re.search(r"process 0 of 2 \(mjx\) on \S+: 2 cpu devices", pair.error(0))
    assert re.search(r"process 1 of 2 \(mjx\) on \S+: 2 cpu devices", pair.error(0))
    assert "process 1 of 2" not in pair.error(1)


@pytest.mark.parametrize("culprit", [0, 1])
def test_an_exception_in_one_process_is_shown_at_once_and_ends_both(tmp_path, culprit):
    with Pair(tmp_path, f"error-in-{culprit}") as pair:
        assert pair.codes() == [1, 1]
    assert f"process {culprit} of 2" in pair.error(culprit)
    assert "ZeroDivisionError: made up" in pair.error(culprit)
    assert "Traceback" in pair.error(culprit)
    bystander = pair.error(1 - culprit)
    assert (
        f"process {1 - culprit} ends because process {culprit} did: ZeroDivisionError: made up" in bystander
    )


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_killed_from_outside_ends_the_other(tmp_path, victim):
    with Pair(tmp_path, "run", HEARTBEAT_SECONDS="3") as pair:
        pair.wait_for_steps()
        pair.processes[victim].kill()
        codes = pair.codes()
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] != 0
    assert "distributed service detected fatal errors" in pair.error(
        1 - victim
    ) or "JaxRuntimeError" in pair.error(1 - victim)


def test_a_signal_to_one_process_stops_both_after_the_same_step(tmp_path):
    with Pair(tmp_path, "run") as pair:
        pair.wait_for_steps()
        pair.processes[1].terminate()
        assert pair.codes() == [0, 0]
    stops = [re.search(r"stopped after (\d+) because (.*)", pair.output(own)) for own in range(2)]
    assert stops[0] is not None
    assert stops[1] is not None
    assert stops[0].groups() == stops[1].groups()
    assert stops[0][2] == "process 1 received SIGTERM"


def test_a_second_sigterm_ends_a_process_that_hangs_in_a_collective(tmp_path):
    with Pair(tmp_path, "hang-in-0") as pair:
        pair.wait_for_steps()
        pair.processes[1].terminate()
        time.sleep(ECHO_SECONDS + 0.5)  # sooner it is an echo of the first
        pair.processes[1].terminate()
        assert pair.codes() == [143, 143]
    assert "received SIGTERM a second time" in pair.error(1)
    assert "process 0 ends because process 1 did" in pair.error(0)


@pytest.mark.parametrize("fault", ["input-in-all", "input-before-start"])
def test_an_input_error_in_every_process_is_said_once(tmp_path, fault):
    with Pair(tmp_path, fault) as pair:
        assert pair.codes() == [2, 2]
    assert pair.error(0).count("mjx: error: ") == 1
    assert "Traceback" not in pair.error(0)
    assert "mjx: error" not in pair.error(1)


@pytest.mark.parametrize("fault", ["input-in-1", "input-before-start-in-1"])
def test_an_input_error_in_one_process_ends_both_and_is_said_once(tmp_path, fault):
    with Pair(tmp_path, fault) as pair:
        assert pair.codes() == [2, 2]
    assert (pair.error(0) + pair.error(1)).count("data.path = '/nowhere' does not exist.") == 1


def test_ctrl_c_in_one_process_ends_both_with_130(tmp_path):
    with Pair(tmp_path, "interrupt-in-1") as pair:
        assert pair.codes() == [130, 130]


def test_a_failure_after_the_other_process_has_finished_is_still_everybodys(tmp_path):
    with Pair(tmp_path, "late-error") as pair:
        assert pair.codes() == [1, 1]
    assert "process 0 done" in pair.output(0)
    assert "the last checkpoint could not be written" in pair.error(0)


def test_a_stalled_process_shows_the_stacks_of_all_and_ends_both(tmp_path):
    with Pair(tmp_path, "stall") as pair:
        assert pair.codes() == [1, 1]
    assert "no progress in the step after" in pair.error(0) + pair.error(1)
    assert "in fail" in pair.error(1)  # where process 1 slept
    assert "train.py" in pair.error(0)
