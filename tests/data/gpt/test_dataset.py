"""Batches of token-stream windows: Megatron's samples, its masks, and the blend of several sources."""

import json
from pathlib import Path

import numpy as np
import pytest

from mjx.data.dataset import BlendedDataset, InterleavedDataset, source_sizes
from mjx.data.gpt.dataset import GPTDataset
from mjx.data.gpt.index import build_gpt_index
from mjx.data.indexed import IndexedDataset, IndexedDatasetWriter
from mjx.data.splits import split_range
from mjx.errors import InputError

GOLDENS = np.load(Path(__file__).parents[2] / "goldens" / "data" / "megatron_gpt.npz")
META = json.loads(str(GOLDENS["cases"]))
NAMES = {"tokens": "tokens", "labels": "labels", "loss_mask": "loss_mask", "position_ids": "positions"}
MASKS = {"document_mask": True, "reset_positions": True, "mask_eod_loss": True}


def _dataset(folder, name):
    path = folder / name.replace("/", "-")
    for suffix in ("bin", "idx"):
        GOLDENS[f"{name}/{suffix}"].tofile(f"{path}.{suffix}")
    return IndexedDataset(path)


def _case(folder, name, **options):
    case = next(case for case in META["cases"] if case["name"] == name)
    tokens = _dataset(folder, name)
    choices = {key: case[key] for key in ("sequence_length", "add_extra_token")}
    index = build_gpt_index(
        tokens.sequence_lengths,
        range(case["begin"], case["end"]),
        num_samples=case["num_samples"],
        seed=case["seed"],
        drop_last_partial=case["drop_last_partial"],
        **choices,
    )
    return GPTDataset(tokens, index, **{**choices, "eod_id": 256, "vocab_size": 257, **options})


@pytest.mark.parametrize("name", [case["name"] for case in META["cases"] if "samples" in case])
def test_batches_equal_megatrons_samples(tmp_path, name):
    dataset = _case(tmp_path, name, **MASKS)
    expected = GOLDENS[f"{name}/tokens"]
    order = np.random.RandomState(0).permutation(len(expected))  # a batch is read in any order
    batch = dataset.read(order)
    for theirs, ours in NAMES.items():
        np.testing.assert_array_equal(batch[ours], GOLDENS[f"{name}/{theirs}"][order], err_msg=ours)
    assert {name: values.dtype for name, values in batch.items()} == {
        "tokens": np.int32,
        "labels": np.int32,
        "loss_mask": np.float32,
        "positions": np.int32,
        "segment_ids": np.int32,
    }
    assert all(values.flags.c_contiguous and values.flags.writeable for values in batch.values())


def test_segment_ids_encode_megatrons_reset_attention_mask(tmp_path):
    batch = _case(tmp_path, "c1", **MASKS).read(np.arange(8))
    segments = batch["segment_ids"]
    shape = (8, segments.shape[1], segments.shape[1])
    masked = np.unpackbits(GOLDENS["c1/attention_mask"])[: np.prod(shape)].reshape(shape).astype(bool)
    causal = np.tril(np.ones(shape[1:], bool))
    np.testing.assert_array_equal((segments[:, :, None] == segments[:, None]) & causal, ~masked)
    assert segments.min() == 1


def test_masks_are_off_unless_asked_for(tmp_path):
    batch = _case(tmp_path, "c1").read(np.arange(8))
    assert "segment_ids" not in batch
    assert batch["loss_mask"].min() == 1.0
    assert "positions" not in batch


EOD = 99


def _masked(folder, documents, eod_id, length=8):
    """All rows of documents (lists of sequences), in the order of one epoch."""
    with IndexedDatasetWriter(folder / "d", np.uint16) as writer:
        for document in documents:
            for sequence in document:
                writer.add_sequence(sequence)
            writer.end_document()
    tokens = IndexedDataset(folder / "d")
    split = range(len(tokens))
    index = build_gpt_index(tokens.sequence_lengths, split, sequence_length=length, num_samples=None, seed=1)
    dataset = GPTDataset(tokens, index, sequence_length=length, eod_id=eod_id, **MASKS)
    return dataset.read(np.arange(len(dataset)))


def _assert_masks(batch, continues):
    """The masks are those of rows in which a token belongs to the one before it where `continues` says so."""
    for row in range(len(batch["tokens"])):
        segment, position = 1, 0
        for place, token in enumerate(batch["tokens"][row]):
            if place and not continues(int(batch["tokens"][row, place - 1]), int(token)):
                segment, position = segment + 1, 0
            assert batch["segment_ids"][row, place] == segment
            assert batch["positions"][row, place] == position
            assert batch["loss_mask"][row, place] == continues(int(token), int(batch["labels"][row, place]))
            position += 1
    assert batch["segment_ids"].max() > 2


@pytest.mark.parametrize("eod_id", [None, EOD, 7])
def test_documents_without_an_end_of_document_token_end_where_the_index_says(tmp_path, eod_id):
    lengths = np.random.RandomState(0).randint(0, 7, 60)
    documents = [[[10 + number] * length] for number, length in enumerate(lengths)]
    _assert_masks(_masked(tmp_path, documents, eod_id), lambda before, after: before == after)


def test_documents_with_an_end_of_document_token_end_there_as_megatron_has_it(tmp_path):
    # Of two sequences, and with the token in the middle of a sequence too.
    documents = [[[10, 10, EOD, 10], [10, 10, EOD]] for _ in range(20)]
    batch = _masked(tmp_path, documents, EOD)
    _assert_masks(batch, lambda before, after: before != EOD)


def test_sequences_of_documents_without_the_token_are_apart_as_in_packed_rows(tmp_path):
    documents = [[[10 + 2 * number] * 3, [11 + 2 * number] * 2] for number in range(20)]
    _assert_masks(_masked(tmp_path, documents, EOD), lambda before, after: before == after)


def test_a_row_that_is_not_full_has_padding_without_weight(tmp_path):
    batch = _masked(tmp_path, [[[10, 10]], [[11]], [[12, 12]]], None, length=16)
    assert batch["tokens"].shape == (1, 16)
    assert batch["loss_mask"].sum() == 2
    assert batch["loss_mask"][0, 4:].sum() == 0
    assert batch["segment_ids"][0].tolist()[5:] == [0] * 11
    plain = _masked(tmp_path, [[[10, 10]]], None, length=16)
    assert plain["labels"][0, 0] == 10
    assert plain["loss_mask"].sum() == 1


def test_a_token_outside_the_vocabulary_is_named_with_file_and_document(tmp_path):
    with IndexedDatasetWriter(tmp_path / "d", np.uint16) as writer:
        writer.add_documents(np.array([1, 2, 3, 4, 500, 6, 7, 8, 9, 1]), np.array([3, 4, 3]))
    tokens = IndexedDataset(tmp_path / "d")
    index = build_gpt_index(tokens.sequence_lengths, range(3), sequence_length=3, num_samples=None, seed=1)
    dataset = GPTDataset(tokens, index, sequence_length=3, vocab_size=300)
    with pytest.raises(
        InputError, match=r"Document 1 of .*/d\.bin has the token id 500.*model\.vocab_size: 501 at least"
    ):
        dataset.read(np.arange(len(dataset)))


@pytest.mark.parametrize(("split", "size"), [("train", 170), ("valid", 10)])
def test_a_blend_equals_megatrons(tmp_path, split, size):
    weights = [0.5, 0.2, 0.3]
    parts = []
    for number, part in enumerate(source_sizes(weights, size)):
        tokens = _dataset(tmp_path, f"blended/{number}")
        documents = split_range("80,15,5", split, len(tokens))
        index = build_gpt_index(
            tokens.sequence_lengths, documents, sequence_length=32, num_samples=part, seed=99
        )
        parts.append(GPTDataset(tokens, index, sequence_length=32, eod_id=256, **MASKS))
    blend = BlendedDataset(parts, weights, size)
    batch = blend.read(np.arange(size))
    for theirs, ours in NAMES.items():
        np.testing.assert_array_equal(batch[ours], GOLDENS[f"blended/{split}/{theirs}"], err_msg=ours)


class _Numbers:
    def __init__(self, first, size):
        self.first, self.size = first, size

    def __len__(self):
        return self.size

    def read(self, samples):
        return {"tokens": (self.first + samples)[:, None]}


def test_interleaving_takes_every_sample_once_and_spreads_them():
    both = InterleavedDataset([_Numbers(0, 30), _Numbers(100, 10)])
    seen = both.read(np.arange(len(both)))["tokens"][:, 0]
    assert sorted(seen) == [*range(30), *range(100, 110)]
    assert 2 <= (seen[:12] >= 100).sum() <= 4


def test_a_blend_that_takes_more_than_there_is_is_refused():
    with pytest.raises(InputError, match="takes 25 samples of source 1, which has 10"):
        BlendedDataset([_Numbers(0, 50), _Numbers(100, 10)], [1, 1], 50)
