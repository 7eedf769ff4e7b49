"""Document, sample and shuffle index, splits and blends: bit for bit those of Megatron-Core 0.16.1."""

import dataclasses
import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from mjx.data.blend_index import _run, blend_index, normalize
from mjx.data.gpt.index import GPTIndex, build_gpt_index, load_gpt_index
from mjx.data.indexed import IndexedDataset, IndexedDatasetWriter
from mjx.data.splits import EmptyPartError, parse_split, split_range
from mjx.errors import InputError

GOLDENS = np.load(Path(__file__).parents[2] / "goldens" / "data" / "megatron_gpt.npz")
META = json.loads(str(GOLDENS["cases"]))
CHOICES = ("sequence_length", "num_samples", "seed", "add_extra_token", "drop_last_partial")


@pytest.mark.parametrize("case", META["cases"], ids=lambda case: case["name"])
def test_index_equals_megatrons(case):
    lengths = GOLDENS[f"{case['name']}/lengths"]
    index = build_gpt_index(
        lengths, range(case["begin"], case["end"]), **{name: case[name] for name in CHOICES}
    )
    for field in dataclasses.fields(GPTIndex):
        ours, theirs = getattr(index, field.name), GOLDENS[f"{case['name']}/{field.name}"]
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs, err_msg=field.name)


def test_goldens_have_a_last_epoch_that_is_shuffled_apart_and_one_that_is_not():
    apart = []
    for case in META["cases"]:
        order = GOLDENS[f"{case['name']}/document_index"]
        documents = case["end"] - case["begin"]
        if len(order) > documents:
            apart.append(len(set(order[-documents:].tolist())) == documents)
    assert any(apart)
    assert not all(apart)


def _saved(tmp_path, lengths):
    with IndexedDatasetWriter(tmp_path / "d", np.uint16) as writer:
        writer.add_documents(np.arange(sum(lengths)) % 100, np.array(lengths))
    return IndexedDataset(tmp_path / "d")


def test_cached_index_is_mapped_and_equal(tmp_path):
    dataset = _saved(tmp_path, [5, 9, 14])
    choices = {"sequence_length": 4, "num_samples": 20, "seed": 3}
    built = build_gpt_index(dataset.sequence_lengths, range(3), **choices)
    for _ in range(2):
        loaded = load_gpt_index(dataset, range(3), tmp_path / "cache", **choices)
        assert isinstance(loaded.sample_index, np.memmap)
        for field in dataclasses.fields(GPTIndex):
            np.testing.assert_array_equal(getattr(loaded, field.name), getattr(built, field.name))
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_every_choice_and_a_changed_dataset_have_an_index_of_their_own(tmp_path):
    dataset = _saved(tmp_path, [5, 9, 14])
    base = {"sequence_length": 4, "num_samples": 20, "seed": 3}
    variants = [base, base | {"sequence_length": 5}, base | {"num_samples": None}, base | {"seed": 4}]
    variants += [base | {"add_extra_token": False}, base | {"drop_last_partial": False}]
    for choices in variants:
        load_gpt_index(dataset, range(3), tmp_path / "cache", **choices)
    load_gpt_index(dataset, range(2), tmp_path / "cache", **base)
    load_gpt_index(_saved(tmp_path, [5, 10, 13]), range(3), tmp_path / "cache", **base)
    folders = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(folders) == len(variants) + 2


def _load_in_process(folder, barrier, results):
    barrier.wait()
    index = load_gpt_index(
        IndexedDataset(folder / "d"),
        range(50),
        folder / "cache",
        sequence_length=4,
        num_samples=9000,
        seed=1,
    )
    results.put(hashlib.sha256(index.shuffle_index.tobytes() + index.sample_index.tobytes()).hexdigest())


def test_processes_that_build_together_end_with_one_index(tmp_path):
    _saved(tmp_path, list(range(10, 60)))
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=_load_in_process, args=(tmp_path, barrier, results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    digests = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(digests) == 1
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_a_split_shorter_than_a_sample_is_one_sample():
    lengths = np.array([5, 7], np.int32)
    index = build_gpt_index(lengths, range(2), sequence_length=12, num_samples=None, seed=1)
    assert index.num_samples == 1
    last = int(lengths[index.document_index[1]])
    assert index.sample_index.tolist() == [[0, 0], [1, last - 1]]  # the last token is only a label


def test_a_split_without_anything_to_predict_is_refused():
    with pytest.raises(EmptyPartError, match="has no tokens"):
        build_gpt_index(np.array([0, 0], np.int32), range(2), sequence_length=4, num_samples=8, seed=1)
    with pytest.raises(EmptyPartError, match="has 1 token "):
        build_gpt_index(np.array([0, 1], np.int32), range(2), sequence_length=4, num_samples=None, seed=1)


def test_split_borders_are_megatrons():
    assert [split_range("90,5,5", name, 219) for name in ("train", "valid", "test")] == [
        range(0, 197),
        range(197, 208),
        range(208, 219),
    ]
    assert [split_range("969,30,1", name, 1000) for name in ("train", "valid", "test")] == [
        range(0, 969),
        range(969, 999),
        range(999, 1000),
    ]
    assert parse_split("1") == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("split", ["969;30;1", "1,2,3,4", "", "a,b", "0,0,0", "-1,2,1", "1,,2"])
def test_a_split_that_is_no_split_is_refused(split):
    with pytest.raises(InputError, match=r'split = ".*969,30,1'):
        parse_split(split)


@pytest.mark.parametrize(("split", "name"), [("969,30,1", "test"), ("1,0,0", "valid"), ("99,1", "test")])
def test_an_empty_split_that_is_asked_for_is_refused(split, name):
    with pytest.raises(EmptyPartError, match=f"leaves the {name} part no document of 122"):
        split_range(split, name, 122)


@pytest.mark.parametrize("number", range(len(META["blends"])))
def test_blend_equals_megatrons(number):
    blend = META["blends"][number]
    datasets, samples = blend_index(normalize(blend["weights"]), blend["size"])
    np.testing.assert_array_equal(datasets[:400], GOLDENS[f"blend{number}/first"])
    assert (datasets.dtype, samples.dtype) == (np.int16, np.int64)
    assert hashlib.sha256(datasets.tobytes() + samples.tobytes()).hexdigest() == blend["sha256"]


def test_a_blend_is_exact_when_every_guess_is_wrong(monkeypatch):
    weights = normalize([0.5, 0.3, 0.2])
    right = blend_index(weights, 60_000)

    def wrong_guess(weights, begins, taken, steps):
        counts, picks = _run(weights, begins, taken, steps)
        return (counts + np.array([[3], [-2], [-1]]), picks) if taken is None else (counts, picks)

    monkeypatch.setattr("mjx.data.blend_index._run", wrong_guess)
    for ours, expected in zip(blend_index(weights, 60_000), right, strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_small_blends_take_every_sample_once(size):
    datasets, samples = blend_index(normalize([1, 2]), size)
    for dataset in range(2):
        assert samples[datasets == dataset].tolist() == list(range((datasets == dataset).sum()))
