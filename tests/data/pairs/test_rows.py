"""Rows of files of each kind, and sentences about what is wrong in them."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from mjx.data.pairs.rows import read_lines_together, read_rows
from mjx.errors import InputError

ROWS = [["one", "un"], ["two words", "deux mots"], ["three", "trois – né"]]


def write(folder, kind):
    path = folder / f"rows{kind}"
    if kind == ".parquet":
        table = {"id": [1, 2, 3], "en": [row[0] for row in ROWS], "fr": [row[1] for row in ROWS]}
        pyarrow.parquet.write_table(pyarrow.table(table), path)
        return path
    if kind == ".csv":
        text = "id,fr,en\n" + "".join(f'{i},"{fr}",{en}\r\n' for i, (en, fr) in enumerate(ROWS))
    elif kind.startswith(".tsv"):
        text = "id\tfr\ten\n" + "".join(f"{i}\t{fr}\t{en}\r\n" for i, (en, fr) in enumerate(ROWS))
    else:
        records = [{"fr": fr, "id": 3, "en": en} for en, fr in ROWS]
        text = json.dumps(records) if kind == ".json" else "\n\n".join(map(json.dumps, records))
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("kind", [".tsv", ".tsv.gz", ".csv", ".json", ".jsonl", ".jsonl.gz", ".parquet"])
def test_every_kind_of_file_has_the_same_rows(tmp_path, kind):
    path = write(tmp_path, kind)
    assert [values for _, values in read_rows(path, ["en", "fr"])] == ROWS
    assert [values for _, values in read_rows(tmp_path, ["fr"])] == [[row[1]] for row in ROWS]
    assert [values for _, values in read_rows(tmp_path / "rows*", ["fr"])] == [[row[1]] for row in ROWS]
    with pytest.raises(InputError, match=rf'rows{kind}.*no (key|column) "de"; it has '):
        list(read_rows(path, ["en", "de"]))


def test_columns_without_names_are_counted(tmp_path):
    (tmp_path / "x.tsv").write_text("a\tb\tc\nd\te\tf\n")
    assert [values for _, values in read_rows(tmp_path / "x.tsv", ["3", "1"])] == [["c", "a"], ["f", "d"]]


def test_lines_of_two_files_are_pairs(tmp_path):
    (tmp_path / "en.txt").write_text("".join(f"{en}\n" for en, _ in ROWS))
    (tmp_path / "fr.txt").write_text("\r\n".join(fr for _, fr in ROWS))
    found = list(read_lines_together(tmp_path / "en.txt", tmp_path / "fr.txt"))
    assert [values for _, values in found] == ROWS
    assert found[1][0] == f"{tmp_path}/en.txt, line 2"


@pytest.mark.parametrize(
    ("name", "text", "columns", "sentence"),
    [
        ("x.tsv", "a\tb\n1\t2\n\n3\t4\n", ["a"], "x.tsv, line 3: the line is empty."),
        ("x.tsv", "a\tb\n1\t2\n3\n", ["a"], "x.tsv, line 3: it has 1 columns, and line 1 has 2."),
        ("x.tsv", "a\tb\n", ["1", "3"], "x.tsv, line 1: it has 2 columns, and no column 3."),
        ("x.tsv", "a\tb\n", ["0"], "x.tsv: columns are counted from 1, and not from 0."),
        (
            "x.tsv",
            "a\tb\n",
            ["c"],
            'x.tsv, line 1: no column "c"; it has "a", "b". (Where the first line does',
        ),
        ("x.jsonl", '{"a": 1}\n{"b": 1}\n', ["a"], 'x.jsonl, line 2: no key "a"; it has "b".'),
        ("x.jsonl", '{"a": 1}\n[1]\n', ["a"], 'x.jsonl, line 2: not an object with the keys "a".'),
        ("x.jsonl", '{"a": 1}\n{"a"\n', ["a"], "x.jsonl, line 2: not JSON ("),
        (
            "x.doc",
            "",
            ["a"],
            "x.doc is of no known kind; known are .tsv, .csv, .json, .jsonl, .ndjson and .parquet",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path, name, text, columns, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as refused:
        list(read_rows(tmp_path / name, columns))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        ("a\nb\nc\n", "a\nb\n", "other.txt has 2 lines and {}/one.txt has 3: line by line they are pairs"),
        ("a\n", "a\nb\nc\nd\n", "one.txt has 1 lines and {}/other.txt has 4: line by line they are pairs"),
        ("a\n \nc\n", "a\nb\nc\n", "one.txt, line 2: the line is empty."),
        ("a\nb\n", "a\n\n", "other.txt, line 2: the line is empty."),
        ("a\n", None, "other.txt does not exist."),
    ],
)
def test_files_whose_lines_are_no_pairs_are_refused(tmp_path, one, other, sentence):
    for name, text in (("one", one), ("other", other)):
        if text is not None:
            (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(InputError) as refused:
        list(read_lines_together(tmp_path / "one.txt", tmp_path / "other.txt"))
    assert sentence.format(tmp_path) in str(refused.value)
