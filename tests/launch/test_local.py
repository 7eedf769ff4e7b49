"""`launch_local`: several processes of one command, their output, their end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mjx.errors import InputError
from mjx.launch import launch_local

ROOT = Path(__file__).parents[2]


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_every_process_has_its_place_and_its_lines_carry_it(capsys):
    code = "import os; e = os.environ; print(e['MJX_PROCESS_ID'], e['MJX_NUM_PROCESSES'], e['X'], sep='/')"
    assert launch_local(3, _python(code), environment={"X": "y"}) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == ["[0] 0/3/y", "[1] 1/3/y", "[2] 2/3/y"]


def test_the_first_failure_gives_the_code_and_the_rest_are_killed(capsys):
    code = "import os, sys, time\nif os.environ['MJX_PROCESS_ID'] == '1': sys.exit(7)\ntime.sleep(60)"
    begun = time.monotonic()
    assert launch_local(2, _python(code), grace_seconds=0.5) == 7
    assert time.monotonic() - begun < 20
    assert "killing what still runs" in capsys.readouterr().err


def test_a_process_killed_by_a_signal_counts_128_and_more():
    assert launch_local(1, _python("import os; os.kill(os.getpid(), 9)")) == 137


def test_a_command_that_does_not_exist_is_an_input_error():
    with pytest.raises(InputError, match="'/no/such/program' cannot be started"):
        launch_local(2, ["/no/such/program"])
    with pytest.raises(InputError, match="num_processes = 0"):
        launch_local(0, ["true"])


def test_sigterm_is_passed_on_to_all(tmp_path):
    child = (
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
        f"pathlib.Path({str(tmp_path)!r}, os.environ['MJX_PROCESS_ID']).touch()\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import sys; from mjx.launch import launch_local\n"
        f"sys.exit(launch_local(2, [sys.executable, '-c', {child!r}]))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen(
        _python(parent), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as launcher:
        limit = time.monotonic() + 30
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < limit:
            time.sleep(0.02)
        launcher.send_signal(signal.SIGTERM)
        out, err = launcher.communicate(timeout=30)
    assert launcher.returncode == 0, err
    assert sorted(out.splitlines()) == ["[0] saved", "[1] saved"]
