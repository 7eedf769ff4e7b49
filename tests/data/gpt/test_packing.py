"""Packing of whole documents: nothing is lost, nothing is torn, little is wasted."""

import numpy as np
import pytest

from mjx.data.gpt.packing import PackedDataset, best_fit, build_packed_index, load_packed_index
from mjx.data.indexed import IndexedDataset, IndexedDatasetWriter
from mjx.errors import InputError


def _packed(tmp_path, lengths, sequence_length, num_samples=None, seed=5):
    """Document d has the tokens 1000 d, 1000 d + 1, ..."""
    tokens = np.concatenate([1000 * d + np.arange(length) for d, length in enumerate(lengths)])
    with IndexedDatasetWriter(tmp_path / "d", np.int32) as writer:
        writer.add_documents(tokens, np.array(lengths))
    dataset = IndexedDataset(tmp_path / "d")
    index = load_packed_index(
        dataset,
        range(len(dataset)),
        tmp_path / "cache",
        sequence_length=sequence_length,
        num_samples=num_samples,
        seed=seed,
    )
    return PackedDataset(dataset, index, sequence_length=sequence_length, vocab_size=10**6)


LENGTHS = [3, 8, 2, 1, 9, 5, 21, 4, 2, 17, 6]


def test_every_prediction_of_every_document_is_in_one_epoch_once(tmp_path):
    dataset = _packed(tmp_path, LENGTHS, 8)
    batch = dataset.read(np.arange(len(dataset)))
    real = batch["loss_mask"] > 0
    np.testing.assert_array_equal(batch["labels"][real], batch["tokens"][real] + 1)
    expected = [1000 * d + i for d, length in enumerate(LENGTHS) for i in range(length - 1)]
    assert sorted(batch["tokens"][real].tolist()) == expected


def test_documents_in_a_row_are_apart_and_padding_is_segment_0(tmp_path):
    dataset = _packed(tmp_path, LENGTHS, 8)
    batch = dataset.read(np.arange(len(dataset)))
    real = batch["loss_mask"] > 0
    np.testing.assert_array_equal(batch["segment_ids"] > 0, real)
    for name in ("tokens", "labels", "positions"):
        assert not batch[name][~real].any()
    for row in range(len(dataset)):
        segments = batch["segment_ids"][row][real[row]]
        assert segments[0] == 1
        assert set(np.diff(segments)) <= {0, 1}
        for segment in np.unique(segments):
            within = batch["segment_ids"][row] == segment
            tokens, positions = batch["tokens"][row][within], batch["positions"][row][within]
            np.testing.assert_array_equal(positions, np.arange(len(positions)))
            np.testing.assert_array_equal(tokens - tokens[0], positions)


def test_documents_that_fit_are_not_torn(tmp_path):
    dataset = _packed(tmp_path, LENGTHS, 8)
    offsets = dataset.index.piece_offset[np.array(LENGTHS)[dataset.index.piece_sequence] <= 9]
    assert not offsets.any()


def test_the_order_is_a_function_of_the_seed(tmp_path):
    first, second = (_packed(tmp_path, LENGTHS * 9, 8, seed=5).read(np.arange(30)) for _ in range(2))
    np.testing.assert_array_equal(first["tokens"], second["tokens"])
    other = _packed(tmp_path, LENGTHS * 9, 8, seed=6).read(np.arange(30))
    assert (other["tokens"] != first["tokens"]).any()


def test_every_epoch_has_every_row_in_an_order_of_its_own(tmp_path):
    rows = len(_packed(tmp_path, LENGTHS * 9, 8))
    order = _packed(tmp_path, LENGTHS * 9, 8, num_samples=2 * rows + 3).index.row_order
    assert len(order) == 2 * rows + 3
    first, second = order[:rows], order[rows : 2 * rows]
    np.testing.assert_array_equal(np.sort(first), np.arange(rows))
    np.testing.assert_array_equal(np.sort(second), np.arange(rows))
    assert (first != second).any()


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_never_overfull_and_as_few_as_simple_best_fit_makes(seed):
    random = np.random.RandomState(seed)
    lengths = random.randint(1, 65, 500)
    rows = best_fit(lengths, 64, random)
    filled = np.bincount(rows, weights=lengths)
    assert filled.max() <= 64
    assert filled.min() > 0
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, left in enumerate(room) if left >= length]
        if fitting:
            room[min(fitting, key=lambda row: room[row])] -= length
        else:
            room.append(64 - length)
    assert len(filled) == len(room)


def test_ordinary_documents_leave_little_padding():
    lengths = np.random.RandomState(0).lognormal(6, 1, 20_000).astype(np.int32) + 2
    index = build_packed_index(lengths, range(20_000), sequence_length=2048, num_samples=None, seed=1)
    used = index.piece_length.sum() / (2048 * (len(index.row_start) - 1))
    assert used > 0.999


def test_documents_without_a_prediction_are_refused():
    with pytest.raises(InputError, match="no document of two tokens or more"):
        build_packed_index(np.array([1, 0, 1], np.int32), range(3), sequence_length=8, num_samples=4, seed=1)
