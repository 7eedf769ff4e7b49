"""The run's folder: who may write to it, and what lies where."""

import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from mjx import files
from mjx.checkpoint.folder_lock import FolderLock
from mjx.checkpoint.run_folder import RunFolder
from mjx.errors import InputError

HOLD = """
    import os, sys, time
    from mjx.checkpoint.folder_lock import FolderLock
    lock = FolderLock(sys.argv[1] + "/run.lock", sys.argv[1])
    lock.acquire()
    if "fork" not in sys.argv or os.fork() == 0:
        print("held", os.getpid(), flush=True)
    time.sleep(60)
"""


def hold(folder, *options: str) -> tuple[subprocess.Popen, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), folder, *options], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline()


def test_the_names_in_a_run_folder(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "gpt2")
    names = ["config", "checkpoints", "metrics", "tensorboard", "loss_plot", "sample", "tokenizer"]
    assert [getattr(folder, name).relative_to(folder.path).as_posix() for name in names] == [
        "config.yaml",
        "checkpoints",
        "metrics.jsonl",
        "tensorboard",
        "loss.png",
        "sample.txt",
        "tokenizer",
    ]
    assert not folder.path.exists()  # looking makes nothing


def test_claiming_makes_the_folder_and_releasing_frees_it(tmp_path):
    with RunFolder(tmp_path / "runs" / "a") as folder:
        assert folder.claimed
        folder.write_config("a: 1\n")
        folder.write_config("a: 2\n")
        assert folder.config.read_text() == "a: 2\n"
        assert sorted(entry.name for entry in folder.path.iterdir()) == ["config.yaml", "run.lock"]
    assert not folder.claimed
    with RunFolder(tmp_path / "runs" / "a"):
        pass


def test_a_second_run_is_refused_with_host_process_and_start_of_the_first_until_it_is_killed(tmp_path):
    process, _ = hold(tmp_path)
    try:
        with pytest.raises(InputError) as caught:
            RunFolder(tmp_path).claim()
        message = str(caught.value)
        assert message.startswith(f"{tmp_path} is in use by a live run: process {process.pid} on host ")
        assert f"host {socket.gethostname()}, started 2" in message
        assert message.endswith("Stop that run, or give this one another folder.")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    RunFolder(tmp_path).claim().release()


def test_a_forked_child_does_not_keep_the_folder_of_a_killed_run(tmp_path):
    process, line = hold(tmp_path, "fork")
    child = int(line.split()[1])
    try:
        process.send_signal(signal.SIGKILL)
        process.wait()
        RunFolder(tmp_path).claim().release()
        os.kill(child, 0)  # it is alive all the while
    finally:
        os.kill(child, signal.SIGKILL)


def test_one_process_cannot_claim_a_folder_twice(tmp_path):
    with RunFolder(tmp_path), pytest.raises(InputError, match=f"process {os.getpid()} on host"):
        RunFolder(tmp_path).claim()


def test_a_holder_that_has_not_yet_written_its_name_still_holds(tmp_path):
    with FolderLock(tmp_path / "run.lock", tmp_path):
        (tmp_path / "run.lock").write_text("")
        with pytest.raises(InputError, match="its holder has not written its name"):
            RunFolder(tmp_path).claim()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"run folder {tmp_path}/file/run cannot be used: Not a directory"):
        RunFolder(tmp_path / "file" / "run").claim()


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    with RunFolder(tmp_path) as folder:
        assert folder.claimed
    assert "has no file locks (Function not implemented)" in caplog.text
