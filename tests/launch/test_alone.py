"""Start-up, signals, the watchdog and the ends of a process that runs alone."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mjx.errors import InputError
from mjx.launch import Preemption, RuntimeConfig, WatchdogConfig, barrier, end_together
from mjx.launch.cluster import Cluster
from mjx.launch.connect import connect
from mjx.launch.pmi import pass_on_address

ROOT = Path(__file__).parents[2]


def _run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def test_start_applies_the_settings_once_and_again_without_harm(tmp_path):
    code = (
        "import os, jax\n"
        "from mjx.launch import RuntimeConfig, start\n"
        "config = RuntimeConfig(platform='cpu', cpu_devices=4, debug_nans=True, "
        f"compilation_cache={str(tmp_path / 'c')!r},\n                       deterministic=True)\n"
        "processes = start(config)\n"
        "assert start(config) is processes\n"
        "assert jax.device_count() == processes.device_count == len(processes.local_device_ids) == 4\n"
        "assert processes.is_first and processes.launcher == 'none' and processes.platform == 'cpu'\n"
        "assert jax.config.jax_debug_nans and 'xla_gpu_deterministic_ops=true' in os.environ['XLA_FLAGS']\n"
        "assert jax.config.jax_compilation_cache_dir.endswith('/c')\n"
        "start(RuntimeConfig(platform='cpu', cpu_devices=2))\n"
    )
    ran = _run(code)
    assert "process 0 on " in ran.stderr
    assert ran.stderr.rstrip().splitlines()[-1].startswith("RuntimeError: mjx.launch.start was called with")


def test_programs_are_kept_for_the_next_process_in_a_folder_of_this_kind_of_cpu(tmp_path):
    code = (
        "import jax\n"
        "from mjx.launch import RuntimeConfig, start\n"
        "start(RuntimeConfig(platform='cpu'{}))\n"
        "jax.jit(lambda x: x + 1)(1.0)\n"
        "print(jax.config.jax_compilation_cache_dir)"
    )
    caches = {"XDG_CACHE_HOME": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": ""}
    (folder,) = {_run(code.format(""), **caches).stdout.strip() for _ in range(2)}
    assert Path(folder).parent == tmp_path / "mjx" / "xla"
    assert [name.name.startswith("jit__lambda-") for name in Path(folder).glob("*-cache")] == [True]
    # A home that cannot be written costs no run; a folder that was named is missed.
    (tmp_path / "file").touch()
    unwritable = str(tmp_path / "file" / "xla")
    ran = _run(code.format(""), **caches | {"XDG_CACHE_HOME": unwritable})
    assert (ran.returncode, ran.stdout) == (0, "\n"), ran.stderr
    homeless = "import pathlib\ndef none(): raise RuntimeError('no home')\npathlib.Path.home = none\n"
    ran = _run(homeless + code.format(""), **caches | {"XDG_CACHE_HOME": ""})
    assert (ran.returncode, ran.stdout) == (0, "\n"), ran.stderr
    refused = _run(code.format(f", compilation_cache={unwritable!r}"), **caches)
    assert f"runtime.compilation_cache = {unwritable}: Not a directory; name a folder" in refused.stderr


@pytest.mark.parametrize(("named", "level"), [("", 2), ("--xla_backend_optimization_level=1", 1)])
def test_cpus_compile_with_llvm_s_usual_optimizations_unless_told_otherwise(named, level, tmp_path):
    code = (
        "import jax\n"
        "from mjx.launch import RuntimeConfig, start\n"
        "start(RuntimeConfig(platform='cpu', compilation_cache='off'))\n"
        "jax.jit(lambda x: x + 1)(1.0)\n"
    )
    flags = f"{named} --xla_dump_to={tmp_path}".strip()
    ended = _run(code, XLA_FLAGS=flags, JAX_DISABLE_MOST_OPTIMIZATIONS="0")
    assert ended.returncode == 0, ended.stderr
    said = [path.read_text() for path in tmp_path.glob("*.debug_options")]
    assert said
    assert all(f"xla_backend_optimization_level: {level}\n" in text for text in said)


def test_start_after_a_device_was_touched_is_refused_where_it_would_change_something():
    code = (
        "import jax; jax.devices()\n"
        "from mjx.launch import RuntimeConfig, start\n"
        "start(RuntimeConfig({}))\n"
        "print('ok')"
    )
    assert _run(code.format(""), JAX_PLATFORMS="cpu").stdout == "ok\n"
    refused = _run(code.format("cpu_devices=8"), JAX_PLATFORMS="cpu")
    assert "must be called before any array" in refused.stderr
    assert refused.returncode == 1


def test_importing_the_config_does_not_import_jax():
    assert _run("import sys, mjx.launch; assert 'jax' not in sys.modules").returncode == 0


def test_processes_that_do_not_meet_end_with_a_sentence(tmp_path):
    code = (
        "from mjx.launch import RuntimeConfig, start\n"
        "start(RuntimeConfig(platform='cpu', initialization_seconds=2))"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    place = {"MJX_COORDINATOR": address, "MJX_NUM_PROCESSES": "2"}
    ran = _run(code, **place, MJX_PROCESS_ID="1")
    assert ran.returncode == 1
    assert f"process 1 of 2 on {socket.gethostname()} waited for process 0 at {address} for 2 s" in ran.stderr
    assert "does not answer" in ran.stderr
    ran = _run(code, **place, MJX_PROCESS_ID="0")
    assert ran.returncode == 1
    assert "some of the others did not arrive" in ran.stderr


def test_a_coordinator_port_that_is_taken_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match="MJX_COORDINATOR_PORT"):
            connect(Cluster(launcher="mjx", num_processes=2, process_id=0, coordinator=address))


def test_a_guessed_coordinator_on_another_host_is_refused():
    cluster = Cluster(launcher="openmpi", num_processes=2, process_id=0, coordinator="192.0.2.77:61440")
    with pytest.raises(InputError, match=r"192\.0\.2\.77.*is another host's"):
        connect(cluster)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cpu_devices": 0}, "cpu_devices = 0"),
        ({"platform": "cuda", "cpu_devices": 2}, "needs platform = cpu"),
        ({"coordinator": "host"}, "coordinator = 'host'"),
        ({"heartbeat_seconds": 1}, "heartbeat_seconds = 1"),
        ({"gpu_memory_fraction": 1.5}, "gpu_memory_fraction = 1.5"),
        ({"xla_flags": ("-O3",)}, "xla_flags has '-O3'"),
        ({"process_id": -1}, "process_id = -1"),
    ],
)
def test_runtime_values_that_cannot_work_are_refused_by_name(values, words):
    with pytest.raises(InputError, match=words):
        RuntimeConfig(**values)


def test_watchdog_values_that_cannot_work_are_refused_by_name():
    with pytest.raises(InputError, match="stall_seconds = 0"):
        WatchdogConfig(stall_seconds=0)


def test_the_watchdog_lets_progress_pass_and_ends_a_stall():
    code = (
        "import time\n"
        "from mjx.launch import Watchdog, WatchdogConfig\n"
        "def stuck():\n    time.sleep(60)\n"
        "with Watchdog(WatchdogConfig(stall_seconds=1.5, first_step_seconds=30)) as watchdog:\n"
        "    time.sleep(2.0)\n"  # the first step has its own limit
        "    for step in range(4):\n        watchdog.beat(step)\n        time.sleep(0.5)\n"
        "    with watchdog.allow(30, 'a checkpoint'):\n        time.sleep(2.0)\n"
        "    print('alive', flush=True)\n"
        "    watchdog.beat(3)\n"
        "    stuck()\n"
    )
    ran = _run(code)
    assert ran.stdout == "alive\n"
    assert ran.returncode == 1
    assert "no progress in the step after 3 for 1.5 s" in ran.stderr
    assert "in stuck" in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_the_loop_after_the_step_and_the_old_handlers_come_back(number):
    before = signal.getsignal(number)
    with Preemption() as preemption:
        assert not preemption.should_stop(0)
        os.kill(os.getpid(), number)
        limit = time.monotonic() + 10
        while preemption.reason is None and time.monotonic() < limit:
            time.sleep(0.01)
        assert preemption.should_stop(1)
        assert preemption.reason == f"process 0 received {number.name}"
    assert signal.getsignal(number) is before


def test_a_ctrl_c_that_python_lost_is_raised_after_the_step():
    def steps(preemption: Preemption) -> None:
        limit = time.monotonic() + 10
        while time.monotonic() < limit:
            preemption.should_stop(0)
            time.sleep(0.01)

    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                steps(preemption)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_echo_of_a_signal_is_no_second_one(number):
    """Sent to the process and to its group, or passed on by a launcher: it comes twice."""
    with Preemption() as preemption:
        for _ in range(3):
            os.kill(os.getpid(), number)
            time.sleep(0.05)
        assert preemption.should_stop(0)


def test_a_second_sigterm_ends_a_process_that_does_not_stop():
    code = (
        "import os, signal, time\n"
        "from mjx.launch import Preemption, preemption\n"
        "preemption.ECHO_SECONDS = 0.2\n"
        "with Preemption():\n"
        "    for _ in range(2):\n        os.kill(os.getpid(), signal.SIGTERM)\n        time.sleep(0.3)\n"
        "    time.sleep(30)\n"
    )
    assert _run(code).returncode == 143


def test_alone_an_input_error_is_a_sentence_and_code_2_and_other_errors_pass(capsys):
    with pytest.raises(SystemExit) as exit_, end_together():
        raise InputError("embed = 7 is odd.")
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "mjx: error: embed = 7 is odd.\n"
    with pytest.raises(SystemExit) as exit_, end_together():
        raise KeyboardInterrupt
    assert exit_.value.code == 130
    with pytest.raises(ZeroDivisionError), end_together():
        raise ZeroDivisionError
    with end_together():
        barrier("alone", 1)


def test_an_address_goes_from_process_0_to_another_through_pmi():
    space: dict[str, str] = {}
    written = threading.Barrier(2)

    def manager(connection: socket.socket) -> None:
        with connection, connection.makefile("rw") as stream:
            for line in stream:
                words = dict(word.split("=", 1) for word in line.split())
                match words["cmd"]:
                    case "init":
                        reply = "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0"
                    case "get_my_kvsname":
                        reply = "cmd=my_kvsname kvsname=kvs_7"
                    case "put":
                        space[words["key"]] = words["value"]
                        reply = "cmd=put_result rc=0 msg=success"
                    case "barrier_in":
                        written.wait(10)
                        reply = "cmd=barrier_out"
                    case "get":
                        reply = f"cmd=get_result rc=0 msg=success value={space[words['key']]}"
                    case _:
                        reply = "cmd=finalize_ack"
                stream.write(reply + "\n")
                stream.flush()

    got: dict[int, str] = {}

    def process(own: int, end: socket.socket) -> None:
        cluster = Cluster(launcher="pmi", num_processes=2, process_id=own)
        got[own] = pass_on_address(cluster, {"PMI_FD": str(end.detach())}, "10.1.2.3:456" if own == 0 else "")

    threads = []
    for own in range(2):
        ours, theirs = socket.socketpair()
        threads += [
            threading.Thread(target=manager, args=(theirs,)),
            threading.Thread(target=process, args=(own, ours)),
        ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert got == {0: "10.1.2.3:456", 1: "10.1.2.3:456"}
