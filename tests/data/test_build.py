"""Text files to `.bin`/`.idx`, and errors that name the file and the line."""

import json

import numpy as np
import pytest

from mjx.data.build import build_dataset, write_documents
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


def test_the_output_may_be_called_by_one_of_its_files(tmp_path, jsonl):
    for name in ("q.bin", "q.idx", "q.BIN", "q"):
        build_dataset([jsonl], tmp_path / name, BYTE)
        assert sorted(path.name for path in tmp_path.glob("q*")) == ["q.bin", "q.idx"]
    with pytest.raises(InputError, match="out/ is a folder: say the name of the files in it too, out/NAME"):
        build_dataset([jsonl], "out/", BYTE)


def test_missing_and_empty_inputs_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        build_dataset([tmp_path / "none.txt"], tmp_path / "out", BYTE)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="There is no document to write"):
        build_dataset([tmp_path / "empty.jsonl"], tmp_path / "out", BYTE)
