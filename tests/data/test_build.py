"""Text files to `.bin`/`.idx`, and errors that name the file and the line."""

import json

import numpy as np
import pytest

from mjx.data.build import build_dataset, read_documents, write_documents
from mjx.data.indexed import IndexedDataset, IndexedDatasetWriter
from mjx.data.tokenizers import load_tokenizer, train_bpe
from mjx.errors import InputError

DOCUMENTS = ["first document", "", "zweites Dokument — mit Ümlaut", "a\n\nb", "last"]
BYTE = load_tokenizer("byte")


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(DOCUMENTS)))
    return path


def test_files_equal_those_of_megatrons_rule_token_by_token(tmp_path, jsonl):
    assert build_dataset([jsonl], tmp_path / "ours", BYTE) == (5, 58)
    # Megatron: eod after each document that has tokens; an empty one is a document without sequences.
    with IndexedDatasetWriter(tmp_path / "theirs", np.uint16) as writer:
        for text in DOCUMENTS:
            if text:
                writer.add_sequence([*text.encode(), 256])
            writer.end_document()
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


def test_the_end_of_document_token_can_be_left_out(tmp_path, jsonl):
    build_dataset([jsonl], tmp_path / "d", BYTE, append_eod=False)
    dataset = IndexedDataset(tmp_path / "d")
    assert [bytes(dataset[i].tolist()).decode() for i in range(4)] == [text for text in DOCUMENTS if text]


def test_more_processes_write_the_same_bytes(tmp_path):
    tokenizer = train_bpe(DOCUMENTS * 3, 300)
    texts = [f"{text} {i}" for i in range(2000) for text in DOCUMENTS]
    for workers in (1, 2):
        write_documents(texts, tmp_path / str(workers), tokenizer, workers=workers)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"1{suffix}").read_bytes() == (tmp_path / f"2{suffix}").read_bytes()


def test_progress_counts_up_to_all_documents(tmp_path):
    calls = []
    texts = ["x" * 10] * 10_000
    total = write_documents(texts, tmp_path / "d", BYTE, progress=lambda *counts: calls.append(counts))
    assert len(calls) > 1
    assert calls == sorted(calls)
    assert calls[-1] == total == (10_000, 110_000)


def test_a_text_file_is_one_document_or_many(tmp_path):
    (tmp_path / "a.txt").write_text("\none\ntwo\n\n\n  \nthree\n")
    (tmp_path / "b.txt").write_text("four")
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert list(read_documents(paths)) == ["\none\ntwo\n\n\n  \nthree\n", "four"]
    assert list(read_documents(paths, blank_line_separated=True)) == ["one\ntwo", "three", "four"]


def test_parquet_columns_are_read_in_order(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.parquet"
    table = pyarrow.table({"body": DOCUMENTS, "n": range(5)})
    parquet.write_table(table, path, row_group_size=2)
    assert list(read_documents([path], key="body")) == DOCUMENTS
    with pytest.raises(InputError, match=r'has no column "text"; it has body, n'):
        list(read_documents([path]))
    with pytest.raises(InputError, match="row 1: no text under column"):
        list(read_documents([path], key="n"))
    path.write_bytes(b"no parquet at all")
    with pytest.raises(InputError, match="is not a parquet file"):
        list(read_documents([path]))


GOOD = b'{"text": "fine"}\n'


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("in.jsonl", GOOD + b'{"text": "\xff"}\n', "line 2: byte 0xff at column 11 is not UTF-8"),
        ("in.jsonl", GOOD + b"[1]\n", 'line 2: not an object with the key "text"'),
        ("in.jsonl", GOOD + b'\n{"body": "x"}\n', r'line 3: no text under key "text" \(it has body\)'),
        ("in.jsonl", GOOD + b'{"text": 5}\n', r'line 2: no text under key "text" \(it is a int\)'),
        ("in.jsonl", GOOD + b'{"text": "x', "line 2: not JSON"),
        ("in.jsonl", GOOD + b'{"text": "\\ud800"}\n', "line 2: .* half of a surrogate pair"),
        ("in.txt", b"one\ntwo\nthr\xe9e\n", "line 3: byte 0xe9 at column 4 is not UTF-8"),
        ("in.csv", b"a,b\n", "is of no known kind; known are .txt, .jsonl, .parquet"),
    ],
)
def test_what_cannot_be_read_is_named_with_file_and_line(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence) as error:
        build_dataset([tmp_path / name], tmp_path / "out", BYTE)
    assert str(tmp_path / name) in str(error.value)
    assert not list(tmp_path.glob("*out*"))


def test_missing_and_empty_inputs_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        build_dataset([tmp_path / "none.txt"], tmp_path / "out", BYTE)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="There is no document to write"):
        build_dataset([tmp_path / "empty.jsonl"], tmp_path / "out", BYTE)
