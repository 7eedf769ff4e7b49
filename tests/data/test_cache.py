"""Folders that are built once: by whom, what becomes of damaged ones, and of a disk that is full."""

import contextlib
import resource
import threading

import numpy as np
import pytest

from mjx.data.blend_index import load_blend_index, normalize
from mjx.data.build import write_documents
from mjx.data.cache import build_once, cached_arrays
from mjx.data.corpora import CORPORA
from mjx.data.gpt.index import load_gpt_index
from mjx.data.gpt.packing import load_packed_index
from mjx.data.indexed import IndexedDataset
from mjx.data.masked.sentence_map import load_sentence_map
from mjx.data.named_corpus import prepare_corpus
from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError

BYTE = load_tokenizer("byte")


def read(folder):
    return (folder / "file").read_text()


def test_one_builds_while_the_others_wait(tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        threading.Event().wait(0.3)
        (folder / "file").write_text("whole")

    threads = [threading.Thread(target=build_once, args=(tmp_path / "x", build, read)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert build_once(tmp_path / "x", build, read) == "whole"


def test_a_damaged_folder_is_built_again_by_one_of_those_that_ask(tmp_path, caplog):
    (tmp_path / "x").mkdir()
    built, found = [], []

    def build(folder):
        built.append(folder)
        threading.Event().wait(0.3)
        (folder / "file").write_text("whole")

    def ask():
        found.append(build_once(tmp_path / "x", build, read))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert found == ["whole"] * 4
    (warning,) = caplog.messages
    assert warning.startswith(f"the cache {tmp_path / 'x'} is damaged, and is built again (")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.lock"]


def test_waiting_ends_with_an_error_and_a_failed_build_leaves_nothing(tmp_path):
    started, done = threading.Event(), threading.Event()

    def slow(folder):
        started.set()
        done.wait(10)
        raise RuntimeError("the builder failed")

    def run():
        with pytest.raises(RuntimeError):
            build_once(tmp_path / "x", slow, read)

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(10)
    with pytest.raises(TimeoutError, match=r"holds .*x.lock for more than 0 s"):
        build_once(tmp_path / "x", lambda folder: None, read, timeout=0.1)
    done.set()
    thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["x.lock"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"data\.cache_dir: cannot write into"):
        build_once(tmp_path / "file" / "x", lambda folder: None, read)


DAMAGES = {
    "cut in its header": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "cut in its numbers": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "of something else": lambda path: path.write_bytes(b"no array"),
}


@pytest.fixture
def dataset(tmp_path):
    write_documents([f"document {i}" * (i % 7 + 1) for i in range(50)], tmp_path / "d", BYTE)
    return IndexedDataset(tmp_path / "d")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("kind", ["gpt", "packed", "blend", "sentences"])
def test_arrays_that_are_damaged_are_made_again(tmp_path, dataset, caplog, kind, damage):
    def load():
        choices = {"sequence_length": 16, "num_samples": 20, "seed": 1}
        if kind == "blend":
            return load_blend_index(normalize([1, 3]), 40, tmp_path / "cache")
        if kind == "sentences":
            draws = {"length": 20, "num_samples": 90, "short_probability": 0.1, "seed": 1}
            return [load_sentence_map(dataset, range(50), tmp_path / "cache", least_sentences=1, **draws)]
        index = {"gpt": load_gpt_index, "packed": load_packed_index}[kind]
        return vars(index(dataset, range(50), tmp_path / "cache", **choices)).values()

    before = [np.array(array) for array in load()]
    (folder,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    files = sorted(folder.glob("*.npy"))
    assert len(files) == len(before)
    for file in (files[:1], files):
        for path in file:
            damage(path)
        caplog.clear()
        again = [np.array(array) for array in load()]
        assert all(np.array_equal(one, other) for one, other in zip(before, again, strict=True))
        assert [message.partition(" (")[0] for message in caplog.messages] == [
            f"the cache {folder} is damaged, and is built again"
        ]
        caplog.clear()
        load()
        assert not caplog.messages


@pytest.mark.parametrize("lost", ["text.bin", "text.idx", "byte_tokenizer.json"])
def test_a_prepared_corpus_that_is_damaged_is_made_again(tmp_path, monkeypatch, caplog, lost):
    monkeypatch.setitem(CORPORA, "small", lambda: iter(f"document {i}" for i in range(30)))
    monkeypatch.setattr("mjx.data.named_corpus.train_bpe", lambda documents, size: BYTE)
    first = prepare_corpus("small", tmp_path).tokens
    tokens = np.array(first.tokens)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    path = folder / lost
    path.unlink() if lost.endswith("json") else path.write_bytes(path.read_bytes()[:-1])
    again = prepare_corpus("small", tmp_path)
    assert np.array_equal(again.tokens.tokens, tokens)
    assert again.tokenizer.vocab_size == 257
    assert str(folder) in caplog.text


def test_arrays_are_the_files_that_numpy_saves(tmp_path):
    arrays = {"a": np.arange(7, dtype=np.int32), "b": np.asfortranarray(np.arange(6).reshape(2, 3))}
    cached_arrays(tmp_path, "kind", {"of": 1}, list(arrays), lambda: arrays)
    (folder,) = tmp_path.glob("kind-*[0-9a-f]")
    np.save(tmp_path / "a.npy", arrays["a"])
    assert (folder / "a.npy").read_bytes() == (tmp_path / "a.npy").read_bytes()
    assert np.array_equal(np.load(folder / "b.npy"), arrays["b"])


@contextlib.contextmanager
def full_disk(size):
    """A file-size limit is refused by the kernel as a full disk is, and needs no disk of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    cache = tmp_path / "cache"
    with full_disk(150), pytest.raises(InputError) as refused:
        cached_arrays(cache, "kind", {"of": 1}, ["a"], lambda: {"a": np.arange(100_000)})
    said = str(refused.value)
    assert said.startswith(f"The cache {cache}/kind-")
    assert " could not be written: File too large. The disk of " in said
    assert said.endswith("data.cache_dir may be on another disk.")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_disk_that_is_full_for_a_corpus_is_the_caches(tmp_path, monkeypatch):
    monkeypatch.setitem(CORPORA, "small", lambda: iter(f"document {i}" * 9 for i in range(300)))
    with (
        full_disk(1000),
        pytest.raises(InputError, match=r"The cache .*corpus-small-\w+ could not be written"),
    ):
        prepare_corpus("small", tmp_path, tokenizer=BYTE)


@pytest.mark.parametrize("limit", [100, 25_000])
def test_a_full_disk_leaves_the_dataset_that_was_there(tmp_path, limit):
    write_documents(["old"], tmp_path / "d", BYTE)
    with full_disk(limit), pytest.raises(InputError, match=r"d\.bin could not be written: File too large"):
        write_documents(["new " * 10] * 2000 if limit == 100 else ["n"] * 2000, tmp_path / "d", BYTE)
    assert bytes(IndexedDataset(tmp_path / "d")[0][:3].tolist()) == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.bin", "d.idx"]
