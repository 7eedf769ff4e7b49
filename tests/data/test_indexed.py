"""The `.bin`/`.idx` pair: equal to Megatron's, and errors that name what is wrong with a file."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from mjx.data.indexed import HEADER, IndexedDataset, IndexedDatasetWriter, token_dtype
from mjx.errors import InputError

GOLDENS = Path(__file__).parents[1] / "goldens" / "data" / "megatron_gpt.npz"
DOCUMENTS = [[1, 2, 3], [4], [], [5, 6]]


@pytest.fixture
def prefix(tmp_path):
    with IndexedDatasetWriter(tmp_path / "d", np.uint16) as writer:
        writer.add_documents(np.array([1, 2, 3, 4, 5, 6]), np.array([3, 1, 0, 2]))
    return tmp_path / "d"


def test_files_written_sentence_by_sentence_equal_megatrons_bytes(tmp_path):
    goldens = np.load(GOLDENS)
    with IndexedDatasetWriter(tmp_path / "d", np.int32) as writer:
        for document in json.loads(str(goldens["cases"]))["sentences"]:
            for sentence in document:
                writer.add_sequence(sentence)
            writer.end_document()
    assert (tmp_path / "d.bin").read_bytes() == goldens["sentences/bin"].tobytes()
    assert (tmp_path / "d.idx").read_bytes() == goldens["sentences/idx"].tobytes()


@pytest.mark.parametrize("case", ["c0", "blended/0", "blended/2"])
def test_files_written_in_batches_equal_megatrons_bytes(tmp_path, case):
    goldens = np.load(GOLDENS)
    goldens[f"{case}/bin"].tofile(tmp_path / "theirs.bin")
    goldens[f"{case}/idx"].tofile(tmp_path / "theirs.idx")
    theirs = IndexedDataset(tmp_path / "theirs")
    theirs.verify()
    with IndexedDatasetWriter(tmp_path / "ours", theirs.dtype) as writer:
        for first in range(0, len(theirs), 7):
            some = [theirs[i] for i in range(first, min(first + 7, len(theirs)))]
            writer.add_documents(np.concatenate(some), np.array([len(tokens) for tokens in some]))
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


def test_documents_are_read_back(prefix):
    dataset = IndexedDataset(prefix)
    dataset.verify()
    assert [dataset[i].tolist() for i in range(len(dataset))] == [d for d in DOCUMENTS if d]
    assert dataset.num_documents == 4
    assert [dataset.document_of_token(i) for i in range(6)] == [0, 0, 0, 1, 3, 3]


def test_vocabularies_below_65500_are_stored_in_two_bytes():
    assert token_dtype(65499) is np.uint16
    assert token_dtype(65500) is np.int32
    assert token_dtype(None) is np.int32


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda raw: b"NOTANIDX" + raw[8:], "does not begin with MMIDIDX"),
        (lambda raw: raw[:20], "ends within its header"),
        (lambda raw: raw[:-3], "it is truncated"),
        (lambda raw: raw + b"xxxxx", "damaged, or of another format"),
        (lambda raw: raw[:9] + struct.pack("<Q", 2) + raw[17:], "has version 2"),
        (lambda raw: raw[:17] + b"\x07" + raw[18:], "dtype code 7"),
        (lambda raw: raw[:-8] + struct.pack("<q", 2), "do not run from 0 to its 3 sequences"),
        (lambda raw: b"", "does not begin with MMIDIDX"),
    ],
)
def test_a_foreign_or_truncated_index_is_refused(prefix, damage, sentence):
    path = Path(f"{prefix}.idx")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=sentence) as error:
        IndexedDataset(prefix)
    assert str(path) in str(error.value)


def test_a_bin_shorter_than_the_index_says_is_refused(prefix):
    path = Path(f"{prefix}.bin")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"has 11 bytes, but .* speaks of 12"):
        IndexedDataset(prefix)


def test_a_bin_longer_than_the_index_says_is_pointed_at(prefix, caplog):
    IndexedDataset(prefix)
    assert not caplog.messages
    path = Path(f"{prefix}.bin")
    path.write_bytes(path.read_bytes() + b"xx")
    IndexedDataset(prefix)
    assert caplog.messages == [
        f"{path} has 14 bytes, but {prefix}.idx speaks of only 12: do they belong together?"
    ]


def test_unsorted_pointers_are_found_when_an_index_is_verified(prefix):
    path = Path(f"{prefix}.idx")
    raw = bytearray(path.read_bytes())
    start = HEADER.size + 4 * 3
    raw[start + 8 : start + 16] = struct.pack("<q", 2)
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"Sequence 1 .* not sorted"):
        IndexedDataset(prefix).verify()


def test_a_missing_file_is_named_and_a_suffix_hinted_at(prefix):
    with pytest.raises(InputError, match=r"give the path without .bin or .idx"):
        IndexedDataset(f"{prefix}.bin")


def test_a_token_that_does_not_fit_is_refused_with_its_document(tmp_path):
    with (
        pytest.raises(InputError, match="Document 2 has the token id 65536"),
        IndexedDatasetWriter(tmp_path / "d", np.uint16) as writer,
    ):
        writer.add_documents(np.array([1, 2, 65536]), np.array([1, 1, 1]))


def test_nothing_appears_when_writing_fails(tmp_path):
    def write():
        with IndexedDatasetWriter(tmp_path / "d", np.uint16) as writer:
            writer.add_sequence([1, 2])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert list(tmp_path.iterdir()) == []


def test_an_old_dataset_survives_until_the_new_one_is_whole(prefix):
    before = Path(f"{prefix}.idx").read_bytes()
    with IndexedDatasetWriter(prefix, np.uint16) as writer:
        writer.add_documents(np.array([9]), np.array([1]))
        assert Path(f"{prefix}.idx").read_bytes() == before
    assert IndexedDataset(prefix)[0].tolist() == [9]
    assert sorted(path.name for path in prefix.parent.iterdir()) == ["d.bin", "d.idx"]


def test_the_identity_is_of_the_content_not_of_the_path(prefix, tmp_path):
    for suffix in (".bin", ".idx"):
        (tmp_path / f"copy{suffix}").write_bytes(Path(f"{prefix}{suffix}").read_bytes())
    with IndexedDatasetWriter(tmp_path / "other", np.uint16) as writer:
        writer.add_documents(np.array([1, 2, 3, 4, 5, 6]), np.array([1, 3, 0, 2]))
    assert IndexedDataset(prefix).identity() == IndexedDataset(tmp_path / "copy").identity()
    assert IndexedDataset(prefix).identity() != IndexedDataset(tmp_path / "other").identity()
