"""What goes wrong while a checkpoint is written or read, and how it is told."""

import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.checkpoint import orbax_store
from mjx.checkpoint.checkpointer import CheckpointConfig, Checkpointer
from mjx.errors import InputError


def save(checkpointer: Checkpointer, step: int, state: Any, **options: Any) -> float:
    return checkpointer.save(step, state, data_state={"step": step}, config="a: 1\n", **options)


class Jammed:
    """Stands for Orbax's answer: a save that ends when and how the test says."""

    def __init__(self, error: Exception | None = None):
        self.error = error
        self.release = threading.Event()

    def result(self, timeout: float | None = None) -> None:
        if not self.release.wait(timeout):
            raise TimeoutError
        if self.error:
            raise self.error


@pytest.mark.parametrize("surface", ["save", "wait", "close"])
def test_an_error_of_the_background_writer_reaches_the_caller(tmp_path, monkeypatch, surface):
    failing = Jammed(OSError(5, "Input/output error"))
    monkeypatch.setattr(orbax_store, "start_saving", lambda *_: failing)
    checkpointer = Checkpointer(tmp_path)
    state = {"w": jnp.zeros(3)}
    save(checkpointer, 1, state)
    failing.release.set()
    with pytest.raises(OSError, match="Input/output error"):
        save(checkpointer, 2, state) if surface == "save" else getattr(checkpointer, surface)()
    checkpointer.close()  # told once


def test_an_error_of_the_background_writer_does_not_hide_the_one_that_ends_the_run(tmp_path, monkeypatch):
    failing = Jammed(OSError(5, "Input/output error"))
    failing.release.set()
    monkeypatch.setattr(orbax_store, "start_saving", lambda *_: failing)

    def run() -> None:
        with Checkpointer(tmp_path) as checkpointer:
            save(checkpointer, 1, {"w": jnp.zeros(3)})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run()
    assert "last checkpoint was lost as well" in caught.value.__notes__[0]


def test_a_failed_step_can_be_saved_again(tmp_path, monkeypatch):
    failing = Jammed(OSError(5, "Input/output error"))
    failing.release.set()
    checkpointer = Checkpointer(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(orbax_store, "start_saving", lambda *_: failing)
        with pytest.raises(OSError, match="Input/output"):
            save(checkpointer, 1, {"w": jnp.zeros(3)}, wait=True)
    save(checkpointer, 1, {"w": jnp.zeros(3)}, wait=True)
    assert checkpointer.all_steps() == [1]
    checkpointer.close()


def test_a_file_system_that_never_answers_is_given_up_after_the_timeout(tmp_path, monkeypatch):
    monkeypatch.setattr(orbax_store, "start_saving", lambda *_: Jammed())
    with Checkpointer(tmp_path, CheckpointConfig(timeout=0.1)) as checkpointer:
        save(checkpointer, 1, {"w": jnp.zeros(3)})
        with pytest.raises(RuntimeError, match=r"checkpoint.timeout = 0.1 seconds: the file system of"):
            checkpointer.wait()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_save_waits_for_the_disk_only_where_the_config_says_so(tmp_path, monkeypatch, asynchronous):
    slow = Jammed()
    monkeypatch.setattr(orbax_store, "start_saving", lambda *_: slow)
    monkeypatch.setattr("mjx.checkpoint.checkpointer.flush_to_disk", lambda _: None)
    monkeypatch.setattr(orbax_store, "record_files", lambda _: None)
    with Checkpointer(tmp_path, CheckpointConfig(asynchronous=asynchronous)) as checkpointer:
        timer = threading.Timer(1.0, slow.release.set)
        timer.start()
        held_up = save(checkpointer, 1, {"w": jnp.zeros(3)})
        assert (held_up < 0.9) == asynchronous
        assert slow.release.is_set() != asynchronous


def test_too_little_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    state = {"w": jnp.zeros((1000, 1000))}
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, state, wait=True)
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3_000_000))
        with pytest.raises(
            InputError, match=rf"step 2 needs 4.00 MB in {tmp_path}, and the disk has 3.00 MB free"
        ):
            save(checkpointer, 2, state)
        assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "1"]


def test_a_disk_that_fills_up_during_the_write_leaves_the_earlier_checkpoints(tmp_path):
    """A limit on the size of files stands for the full disk: it needs no mount and no rights."""
    script = f"""
        import resource
        import jax, numpy as np
        from mjx.errors import InputError
        from mjx.checkpoint.checkpointer import Checkpointer
        rng = np.random.default_rng(0)
        with Checkpointer({str(tmp_path)!r}) as checkpointer:
            save = lambda step, state: checkpointer.save(step, state, data_state={{}}, config="", wait=True)
            save(1, {{"w": jax.device_put(rng.standard_normal(1000))}})
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
            try:
                save(2, {{"w": jax.device_put(rng.standard_normal(1_000_000, np.float32))}})
            except InputError as error:
                print("refused:", error)
            print("steps:", checkpointer.all_steps())
            checkpointer.restore({{"w": jax.ShapeDtypeStruct((1000,), np.float32)}})
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "refused: The checkpoint of step 2 could not be written: File too large" in run.stdout
    assert f"needs 4.00 MB in {tmp_path}" in run.stdout
    assert "steps: [1]" in run.stdout
    assert "_SignalingThread" not in run.stderr  # the sentence, not a page of threads' tracebacks
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "1"]


@pytest.mark.parametrize("damaged", ["state/manifest.ocdbt", "state/_METADATA", "state/d/*", "state/*/d/*"])
def test_a_damaged_checkpoint_is_named(tmp_path, damaged):
    state = {"w": jax.random.normal(jax.random.key(0), (10_000,))}
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, state, wait=True)
        for file in (tmp_path / "1").glob(damaged):
            file.write_bytes(file.read_bytes()[:10])
        with pytest.raises(InputError, match=f"{tmp_path}/1 cannot be read: "):
            checkpointer.restore({"w": jax.ShapeDtypeStruct((10_000,), jnp.float32)}, 1)


def _empty(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def _cut(checkpoint: Path) -> None:
    for file in (checkpoint / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:10])


def _cut_without_a_list(checkpoint: Path) -> None:
    """As earlier versions made them."""
    (checkpoint / orbax_store.FILES).unlink()
    _cut(checkpoint)


def _purge(checkpoint: Path) -> None:
    next((checkpoint / "state").rglob("d/*")).unlink()


@pytest.mark.parametrize("damage", [_empty, _cut, _cut_without_a_list, _purge])
def test_the_newest_that_can_be_read_is_taken_and_the_others_are_named_and_kept(
    tmp_path, caplog, capfd, damage
):
    abstract = {"w": jax.ShapeDtypeStruct((10_000,), jnp.float32)}
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2, 3):
            save(checkpointer, step, {"w": jax.random.normal(jax.random.key(step), (10_000,))}, wait=True)
    damage(tmp_path / "3")
    damage(tmp_path / "2")
    capfd.readouterr()
    with Checkpointer(tmp_path) as checkpointer:
        state, _, step = checkpointer.restore_newest(abstract)
        assert step == 1
        assert np.array_equal(state["w"], jax.random.normal(jax.random.key(1), (10_000,)))
        named = [record.getMessage() for record in caplog.records if record.name == "mjx"]
        assert len(named) == 2
        for message, damaged in zip(named, (3, 2), strict=True):
            assert message.startswith(f"The checkpoint {tmp_path}/{damaged} is damaged (")
            assert message.endswith(f"that of step {damaged - 1} is taken instead.")
        assert len(caplog.records) == 2
        checkpointer.prepare(1)
        save(checkpointer, 2, state, wait=True)
        assert checkpointer.all_steps() == [1, 2]
    assert {"2.damaged", "3.damaged"} <= {entry.name for entry in tmp_path.iterdir()}
    assert "damaged" not in capfd.readouterr().out


def test_where_all_are_damaged_nothing_begins_anew(tmp_path):
    for step in ("1", "2"):
        (tmp_path / step).mkdir()
    with (
        Checkpointer(tmp_path) as checkpointer,
        pytest.raises(InputError, match=f"{tmp_path}/1 cannot be read"),
    ):
        checkpointer.latest_step()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1", "2"]


def test_of_a_checkpoint_that_is_a_link_only_the_link_is_deleted(tmp_path, caplog):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    with Checkpointer(folder, CheckpointConfig(keep_last=1)) as checkpointer:
        save(checkpointer, 1, {"w": jnp.zeros(3)}, wait=True)
        (folder / "1").rename(elsewhere)
        (folder / "1").symlink_to(elsewhere)
        save(checkpointer, 2, {"w": jnp.zeros(3)}, wait=True)
    (folder / ".deleting-0").symlink_to(elsewhere)
    with Checkpointer(folder) as checkpointer:
        checkpointer.prepare(3)
    assert sorted(entry.name for entry in folder.iterdir()) == [".lock", "2"]
    assert (elsewhere / "state").is_dir()
    assert not caplog.records


def test_what_is_to_be_kept_is_deleted_when_the_new_one_is_good(tmp_path):
    with Checkpointer(tmp_path, CheckpointConfig(keep_last=1)) as checkpointer:
        for step in (1, 2):
            save(checkpointer, step, {"w": jnp.zeros(3)}, keep_others=True)
        checkpointer.wait()
        assert checkpointer.all_steps() == [1, 2]
        save(checkpointer, 3, {"w": jnp.zeros(3)}, keep_others=True)
        checkpointer.delete_old()
    assert checkpointer.all_steps() == [3]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"w": 1.0}, "w of the state is a float"),
        ({"a": {"key": jax.random.key(0)}}, "a.key of the state is a typed PRNG key"),
    ],
)
def test_what_is_not_an_array_is_refused_by_name(tmp_path, state, message):
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(TypeError, match=message):
        save(checkpointer, 1, state)


def test_a_data_state_that_is_not_json_is_refused(tmp_path):
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(TypeError, match="must be JSON"):
        checkpointer.save(1, {"w": jnp.zeros(3)}, data_state={"step": np.int64(1)}, config="")
