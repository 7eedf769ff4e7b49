"""What is made appears whole or not at all; locks die with their holder; full disks are told."""

import errno
import os
import resource
import threading
from pathlib import Path

import pytest

from mjx.errors import InputError
from mjx.files import (
    FileLock,
    InUseError,
    NewFiles,
    disk_full_error,
    local_path,
    make_room,
    new_folder,
    remove,
    write_whole,
)


def test_files_that_belong_together_appear_together(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for text in (b"old", b"new"):
        with NewFiles() as files:
            for path in (first, second):
                files.open(path).write(text)
            assert not second.exists() or second.read_bytes() == b"old"
    assert first.read_bytes() == second.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_of_an_old_and_a_new_file_no_pair_is_ever_made(tmp_path, monkeypatch):
    first, second = tmp_path / "a", tmp_path / "b"
    for path in (first, second):
        path.write_text("old")
    seen = []
    rename = Path.rename

    def watched(path, target):
        seen.append([name for name in ("a", "b") if (tmp_path / name).exists()])
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    with NewFiles() as files:
        for path in (first, second):
            files.open(path).write(b"new")
    assert seen == [["a"], ["a"]]


def test_files_whose_block_raises_leave_the_old_ones_alone(tmp_path):
    (tmp_path / "a").write_text("old")

    def interrupted() -> None:
        with NewFiles() as files:
            files.open(tmp_path / "a").write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_processes_that_contend_do_not_write_into_one_draft(tmp_path, monkeypatch):
    with NewFiles(contended=True) as mine:
        mine.open(tmp_path / "a").write(b"mine")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with NewFiles(contended=True) as theirs:
            theirs.open(tmp_path / "a").write(b"theirs")
        assert (tmp_path / "a").read_bytes() == b"theirs"
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert os.listdir(tmp_path) == ["a"]


def test_a_text_replaces_another_as_a_whole(tmp_path):
    (tmp_path / ".a.partial").write_text("left by a process that was killed, and longer than the new text")
    write_whole(tmp_path / "a", "größer")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "größer"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("path", ["new", "some/where/new", "empty", "link"])
def test_a_new_folder_appears_when_the_block_ends(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    with new_folder(path) as partial:
        (partial / "file").write_text("text")
        assert partial.name.startswith(".")
        assert not (Path(path) / "file").exists()
    assert [entry.name for entry in Path(path).iterdir()] == ["file"]
    assert not partial.exists()


@pytest.mark.parametrize("path", ["new", "empty"])
def test_nothing_is_left_of_a_new_folder_whose_block_raises(tmp_path, path):
    (tmp_path / "empty").mkdir()

    def interrupted() -> None:
        with new_folder(tmp_path / path) as partial:
            (partial / "file").write_text("text")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == ["empty"]
    assert not os.listdir(tmp_path / "empty")


def test_what_a_killed_process_left_of_a_new_folder_is_replaced(tmp_path):
    (tmp_path / ".new.partial").mkdir()
    (tmp_path / ".new.partial" / "old").touch()
    with new_folder(tmp_path / "new"):
        pass
    assert os.listdir(tmp_path) == ["new"]
    assert not os.listdir(tmp_path / "new")


def test_a_path_that_is_taken_is_refused_before_the_block_begins(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "full" / "child").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "full" / "child")
    for path, message in {
        tmp_path / "file": "file exists and is not an empty folder",
        tmp_path / "full": "full exists and is not an empty folder",
        tmp_path / "file" / "new": "file/new cannot be made: .*/file: File exists",
        Path("."): "child cannot be replaced, as it is .* the current folder",
        Path("/"): "/ exists and is not an empty folder",
    }.items():
        with pytest.raises(InputError, match=message), new_folder(path):
            pytest.fail("the block has begun")
    assert sorted(os.listdir(tmp_path)) == ["file", "full"]


def test_a_mount_point_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "mount")
    (tmp_path / "mount").mkdir()
    with (
        pytest.raises(InputError, match="mount cannot be replaced, as it is a mount point"),
        new_folder(tmp_path / "mount"),
    ):
        pytest.fail("the block has begun")
    with new_folder(tmp_path / "mount" / "new"):
        pass


def test_a_folder_that_another_process_made_meanwhile_is_left_alone(tmp_path):
    def two_at_once() -> None:
        with new_folder(tmp_path / "new") as partial:
            (partial / "mine").touch()
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "theirs").touch()

    with pytest.raises(InputError, match="new cannot be made: Directory not empty"):
        two_at_once()
    assert os.listdir(tmp_path) == ["new"]
    assert os.listdir(tmp_path / "new") == ["theirs"]


def test_a_lock_names_its_holder_and_can_be_waited_for(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    with first:
        with pytest.raises(InUseError, match=f"process {os.getpid()} on host .*, started 2"):
            second.acquire()
        threading.Timer(0.2, first.release).start()
        second.acquire(timeout=30)
    assert second.held
    assert not first.held
    second.release()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_seen_through_what_a_library_makes_of_it(tmp_path, code):
    reason = os.strerror(code)
    for error in (OSError(code, reason), ValueError(f"write failed: {reason} [os_error_code='{code}']")):
        wrapped = RuntimeError("the save failed")
        wrapped.__cause__ = error
        told = str(disk_full_error(wrapped, tmp_path, 4_000_000, "The copy", "All else is as it was."))
        assert told.startswith(f"The copy could not be written: {reason}. It needs 4.00 MB in {tmp_path}")
        assert told.endswith("All else is as it was.")
    assert disk_full_error(OSError(errno.EACCES, "denied"), tmp_path, 1, "The copy") is None


def test_a_full_disk_leaves_the_text_that_was_there(tmp_path):
    path = tmp_path / "config.yaml"
    write_whole(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file-size limit is refused by the kernel as a full disk is, and needs no disk of its own.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(
            InputError, match=r"config\.yaml could not be written: File too large.* as it was\."
        ):
            write_whole(path, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


def test_home_folders_are_found_and_what_only_looks_like_one_is_refused(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of")
    assert local_path(Path("~/a")) == "/home/of/a"
    assert local_path("a/~") == "a/~"
    with pytest.raises(InputError, match="~nobody-here is nobody's home folder"):
        local_path("~nobody-here")


def test_of_a_link_the_link_alone_is_removed(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "data").write_text("x")
    for name, target in (("link", kept), (".new.partial", kept), ("dangling", tmp_path / "nothing")):
        (tmp_path / name).symlink_to(target)
    remove(tmp_path / "link")
    remove(tmp_path / "dangling")
    make_room(tmp_path / "new")
    assert os.listdir(tmp_path) == ["kept"]
    assert (kept / "data").read_text() == "x"
