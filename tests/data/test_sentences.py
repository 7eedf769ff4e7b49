"""Documents split into sentences, and the `.bin/.idx` that Megatron's preprocessing writes of them."""

import json
import sys

import numpy as np
import pytest

from mjx.cli import main
from mjx.data.build import build_dataset, write_documents
from mjx.data.indexed import IndexedDataset, IndexedDatasetWriter
from mjx.data.sentences import split_sentences
from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError

BYTE = load_tokenizer("byte")
TEXT = """Dr. Smith went to the U.S. in Jan. 2020. He didn't like it! "Why?" she asked (cf. fig. 3).

A paragraph e.g. of two lines
is a sentence. The last has no end"""
SENTENCES = [
    "Dr. Smith went to the U.S. in Jan. 2020.",
    "He didn't like it!",
    '"Why?" she asked (cf. fig. 3).',
    "A paragraph e.g. of two lines\nis a sentence.",
    "The last has no end",
]
DOCUMENTS = [TEXT, "", " \n\n ", "One sentence.", "Un. Deux! Trois?"]


def test_abbreviations_end_no_sentence_and_blank_lines_do():
    assert split_sentences(TEXT) == SENTENCES
    assert split_sentences("") == split_sentences(" \n\n\t") == []
    assert split_sentences("Das ist z. B. ein Satz. Noch einer.", "de") == [
        "Das ist z. B. ein Satz.",
        "Noch einer.",
    ]


@pytest.mark.parametrize("eod", [None, True])
def test_files_equal_those_of_megatrons_rule(tmp_path, eod):
    write_documents(DOCUMENTS, tmp_path / "ours", BYTE, sentences="en", append_eod=eod)
    # Megatron: every sentence that has tokens is a sequence, eod (where it is asked for) belongs to the last,
    # and every document ends, one without tokens too.
    with IndexedDatasetWriter(tmp_path / "theirs", np.uint16) as writer:
        for text in DOCUMENTS:
            sentences = [list(sentence.encode()) for sentence in split_sentences(text)]
            if sentences and eod:
                sentences[-1].append(256)
            for sentence in sentences:
                writer.add_sequence(sentence)
            writer.end_document()
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()
    ours = IndexedDataset(tmp_path / "ours")
    assert ours.document_indices.tolist() == [0, 5, 5, 5, 6, 9]
    assert bytes(ours[3].tolist()).decode() == SENTENCES[3]


def test_more_processes_write_the_same_bytes(tmp_path):
    texts = [f"{text} {number}." for number in range(900) for text in DOCUMENTS]
    for workers in (1, 2):
        write_documents(texts, tmp_path / str(workers), BYTE, sentences="en", workers=workers)
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"1{suffix}").read_bytes() == (tmp_path / f"2{suffix}").read_bytes()


def test_the_command_splits_sentences(tmp_path, capsys):
    lines = (json.dumps({"text": text}) + "\n" for text in DOCUMENTS)
    (tmp_path / "in.jsonl").write_text("".join(lines))
    build = ["data", "build", str(tmp_path / "in.jsonl"), "--tokenizer", "byte", "--output"]
    main([*build, str(tmp_path / "ours"), "--split-sentences"])
    assert "wrote 5 documents" in capsys.readouterr().out
    build_dataset([tmp_path / "in.jsonl"], tmp_path / "theirs", BYTE, sentences="en")
    assert (tmp_path / "ours.idx").read_bytes() == (tmp_path / "theirs.idx").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        main([*build, str(tmp_path / "x"), "--language", "de"])
    assert stopped.value.code == 2
    assert "--language = de is for --split-sentences" in capsys.readouterr().err


def test_sentences_that_do_not_end_are_warned_of(tmp_path, caplog):
    write_documents(["Short. " + "x" * 600, "y" * 600, "Fine. Too."], tmp_path / "d", BYTE, sentences="en")
    (said,) = caplog.messages
    assert said.startswith("1 of 3 documents have a sentence of more than 512 tokens, and are left out where")


def test_a_missing_package_is_named_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(InputError, match=r"sentences needs the package sentencex: pip install 'mjx\[data\]'"):
        write_documents(iter([]), tmp_path / "d", BYTE, sentences="en")
    assert not list(tmp_path.iterdir())
