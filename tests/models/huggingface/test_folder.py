"""Folders in Hugging Face's layout: what is in them, and what is missing."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from mjx.errors import InputError
from mjx.models.huggingface.folder import HuggingFaceFolder

CONFIG = {"model_type": "llama", "hidden_size": 64}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model as it is downloaded."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    for name in "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "merges.txt":
        (path / name).write_bytes(name.encode() + b"\r\n\xff")
    (path / "modeling_llama.py").write_text("raise SystemExit")
    (path / "README.md").touch()
    safetensors.numpy.save_file({"a": np.ones(3)}, path / "model.safetensors")
    return path


def test_a_folder_gives_its_configs_tokenizer_files_and_tensors(folder):
    model = HuggingFaceFolder(folder)
    assert model.path == folder
    assert model.config == CONFIG
    assert model.generation_config == {"eos_token_id": [1, 2]}
    assert set(model.tokenizer_files) == {
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "merges.txt"
    }  # fmt: skip
    with model.tensors() as tensors:
        assert tensors["a"].read().tolist() == [1, 1, 1]


def test_only_the_config_is_needed(folder):
    for name in set(os.listdir(folder)) - {"config.json"}:
        (folder / name).unlink()
    model = HuggingFaceFolder(str(folder))
    assert model.config == CONFIG
    assert model.generation_config == {}
    assert model.tokenizer_files == ()
    with pytest.raises(InputError, match="There are no weights in"):
        model.tensors()


def test_the_home_folder_has_its_short_name(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert HuggingFaceFolder("~/model").config == CONFIG
    assert HuggingFaceFolder.is_one("~/model")


BROKEN_FILES = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "holds no config.json, so it is not a"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON: "),
    "empty": (lambda folder: (folder / "config.json").write_text(""), "config.json is not JSON: "),
    "binary": (
        lambda folder: (folder / "config.json").write_bytes(b"\xff"),
        "config.json is not JSON: .*utf-8",
    ),
    "a list": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "config.json is not a JSON object but a l",
    ),
    "an option twice": (
        lambda folder: (folder / "config.json").write_text('{"x": 1, "x": 2}'),
        "config.json names 'x' 2 times",
    ),
    "a pointer": (
        lambda folder: (folder / "config.json").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "config.json is a Git LFS pointer",
    ),
    "generation config": (
        lambda folder: (folder / "generation_config.json").write_text("1"),
        "generation_config.json is not a JSON object but a int",
    ),
    "a tokenizer's pointer": (
        lambda folder: (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "tokenizer.json is a Git LFS pointer.*git lfs pull",
    ),
    "a link to nothing": (
        lambda folder: [(folder / "merges.txt").unlink(), (folder / "merges.txt").symlink_to("../blobs/1")],
        "merges.txt is a link to ../blobs/1, which does not exist: the download is incomplete",
    ),
    "a folder": (lambda folder: (folder / "vocab.json").mkdir(), "vocab.json is not a file"),
}


@pytest.mark.parametrize("damage", BROKEN_FILES)
def test_broken_files_are_refused_by_name(folder, damage):
    HuggingFaceFolder(folder)
    harm, message = BROKEN_FILES[damage]
    harm(folder)
    with pytest.raises(InputError, match=message) as refusal:
        HuggingFaceFolder(folder)
    assert str(folder) in str(refusal.value)


def test_a_name_on_the_hub_is_recognised_and_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError,
        match=r"no folder Qwen/Qwen2.5-0.5B; mjx reads local folders and downloads nothing\. If .*"
        r"`hf download Qwen/Qwen2.5-0.5B --local-dir Qwen2.5-0.5B`",
    ):
        HuggingFaceFolder("Qwen/Qwen2.5-0.5B")


@pytest.mark.parametrize("path", ["/nowhere/model", "./nowhere/model", "a/b/c", "gpt", "../model/x"])
def test_another_path_that_is_not_there_is_no_name_on_the_hub(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"There is no folder {path}; .* downloads nothing.$"):
        HuggingFaceFolder(path)


def test_a_file_is_not_a_folder(folder):
    with pytest.raises(
        InputError, match=r"model\.safetensors is not a folder: give the one that holds config"
    ):
        HuggingFaceFolder(folder / "model.safetensors")


def test_the_folder_of_the_hub_s_cache_points_to_its_snapshot(folder, tmp_path):
    cache = tmp_path / "models--org--name"
    (cache / "snapshots").mkdir(parents=True)
    folder.rename(cache / "snapshots" / "0123abc")
    with pytest.raises(InputError, match=r"holds no config\.json, .*; .*/snapshots/0123abc has one"):
        HuggingFaceFolder(cache)


def test_a_run_folder_of_our_own_is_not_one(folder, tmp_path):
    assert HuggingFaceFolder.is_one(folder)
    assert HuggingFaceFolder.is_one(str(folder))
    (folder / "config.yaml").touch()
    assert not HuggingFaceFolder.is_one(folder)
    assert not HuggingFaceFolder.is_one(tmp_path)
    assert not HuggingFaceFolder.is_one(tmp_path / "none")


def test_configs_and_tokenizer_are_carried_along_and_nothing_else(folder, tmp_path):
    blob = tmp_path / "blob"
    (folder / "tokenizer.json").rename(blob)
    (folder / "tokenizer.json").symlink_to("../blob")
    target = tmp_path / "target"
    target.mkdir()
    HuggingFaceFolder(folder).copy_companions(target)
    assert set(os.listdir(target)) == {
        "config.json", "generation_config.json",
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "merges.txt",
    }  # fmt: skip
    for copy in target.iterdir():
        assert not copy.is_symlink()
        assert copy.read_bytes() == (folder / copy.name).read_bytes()


def test_companions_do_not_replace_files(folder, tmp_path):
    with pytest.raises(InputError, match=r"config\.json cannot be written: File exists"):
        HuggingFaceFolder(folder).copy_companions(folder)
    with pytest.raises(InputError, match=r"config\.json cannot be written: No such file or directory"):
        HuggingFaceFolder(folder).copy_companions(tmp_path / "none")
    assert HuggingFaceFolder(folder).config == CONFIG
