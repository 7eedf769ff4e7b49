"""Text files and their documents: kinds, compressions, folders, errors that name the file and the line."""

import bz2
import gzip
import json
import lzma
import sys

import pytest

from mjx.data.build import build_dataset
from mjx.data.documents import BadLines, find_files, read_documents
from mjx.data.tokenizers import load_tokenizer
from mjx.errors import InputError

DOCUMENTS = ["first document", "", "zweites Dokument — mit Ümlaut", "a\n\nb", "last"]
BYTE = load_tokenizer("byte")

LINES = "".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(DOCUMENTS))
ARRAY = json.dumps([{"text": text} for text in DOCUMENTS], indent=2)


def zstd(content):
    pyarrow = pytest.importorskip("pyarrow")
    halves = (content[:50], content[50:])  # two frames, as tools for many cores write them
    return b"".join(pyarrow.compress(half, codec="zstd", asbytes=True) for half in halves)


def test_a_text_file_is_one_document_or_many(tmp_path):
    (tmp_path / "a.txt").write_text("\none\ntwo\n\n\n  \nthree\n")
    (tmp_path / "b.TXT").write_text("four")
    paths = [tmp_path / "a.txt", tmp_path / "b.TXT"]
    assert list(read_documents(paths)) == ["\none\ntwo\n\n\n  \nthree\n", "four"]
    assert list(read_documents(paths, blank_line_separated=True)) == ["one\ntwo", "three", "four"]


@pytest.mark.parametrize("name", ["in.jsonl", "in.JSONL", "in.ndjson", "in.json", "in.Json"])
def test_json_is_an_object_a_line_or_one_array(tmp_path, name):
    for content in (LINES, "\n\n" + LINES.replace("\n", "\r\n\n"), ARRAY, json.dumps(json.loads(ARRAY))):
        (tmp_path / name).write_text(content)
        assert list(read_documents([tmp_path / name])) == DOCUMENTS


def test_json_is_one_object_over_many_lines(tmp_path):
    (tmp_path / "in.json").write_text(json.dumps({"text": "alone", "id": 1}, indent=4))
    assert list(read_documents([tmp_path / "in.json"])) == ["alone"]


@pytest.mark.parametrize("content", [LINES, ARRAY], ids=["lines", "array"])
def test_a_byte_order_mark_is_no_text(tmp_path, content):
    (tmp_path / "in.json").write_text(content, encoding="utf-8-sig")
    assert list(read_documents([tmp_path / "in.json"])) == DOCUMENTS
    (tmp_path / "in.txt").write_text("text\n", encoding="utf-8-sig")
    assert list(read_documents([tmp_path / "in.txt"])) == ["text\n"]
    both = "\ufeff" + LINES + "\ufeff" + LINES  # two files, one behind the other
    (tmp_path / "in.jsonl").write_text(both, encoding="utf-8")
    assert list(read_documents([tmp_path / "in.jsonl"])) == DOCUMENTS * 2


COMPRESSORS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_are_read(tmp_path, suffix):
    compress = COMPRESSORS[suffix]
    for name, content in (("in.jsonl", LINES), ("in.JSON", ARRAY)):
        path = tmp_path / f"{name}{suffix.upper() if name.isupper() else suffix}"
        path.write_bytes(compress(content.encode()))
        assert list(read_documents([path])) == DOCUMENTS
    (tmp_path / f"in.txt{suffix}").write_bytes(compress(b"text"))
    assert list(read_documents([tmp_path / f"in.txt{suffix}"])) == ["text"]


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_compressed_file_that_was_cut_is_named(tmp_path, suffix):
    path = tmp_path / f"in.jsonl{suffix}"
    path.write_bytes(COMPRESSORS[suffix]((LINES * 50).encode())[:-9])
    with pytest.raises(
        InputError, match=r"cannot be read beyond line \d+: it is damaged or cut off"
    ) as error:
        list(read_documents([path]))
    assert str(error.value).startswith(str(path))
    path.write_bytes(b"not compressed at all")
    with pytest.raises(InputError, match="cannot be read beyond line 0"):
        list(read_documents([path]))


def test_a_file_for_which_a_package_is_missing_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "in.jsonl.zst").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        InputError, match=r"in\.jsonl\.zst needs the package pyarrow: pip install 'mjx\[data\]'"
    ):
        list(read_documents([tmp_path / "in.jsonl.zst"]))


def test_parquet_columns_are_read_in_order(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.PARQUET"
    table = pyarrow.table({"body": [*DOCUMENTS, None], "n": range(6)})
    parquet.write_table(table, path, row_group_size=2)
    with pytest.raises(InputError, match="row 6: no text under column"):
        list(read_documents([path], key="body"))
    bad = BadLines(skip=True)
    assert list(read_documents([path], key="body", bad_lines=bad)) == DOCUMENTS
    assert bad.count == 1
    with pytest.raises(InputError, match=r'has no column "text"; it has body, n'):
        list(read_documents([path]))
    with pytest.raises(InputError, match="row 1: no text under column"):
        list(read_documents([path], key="n"))
    path.write_bytes(b"no parquet at all")
    with pytest.raises(InputError, match="is not a parquet file"):
        list(read_documents([path]))


def test_folders_and_patterns_stand_for_their_shards(tmp_path, caplog):
    shards = tmp_path / "shards"
    (shards / "more").mkdir(parents=True)
    (shards / ".cache").mkdir()
    names = ["a-1.jsonl", "a-0.jsonl.gz", "more/b.TXT", ".cache/c.jsonl", ".hidden.txt", "README.md"]
    for name in names:
        (shards / name).write_bytes(gzip.compress(LINES.encode()) if name.endswith("gz") else b"")
    found = ["a-0.jsonl.gz", "a-1.jsonl", "more/b.TXT"]
    assert [path.relative_to(shards).as_posix() for path, _ in find_files([shards])] == found
    assert caplog.messages == [f"{shards}: left out 1 files of other kinds (README.md)"]
    assert [path.name for path, _ in find_files([f"{shards}/a-*"])] == found[:2]
    assert [path.name for path, _ in find_files([f"{shards}/**/*.TXT", shards / "a-1.jsonl"])] == [
        "b.TXT",
        "a-1.jsonl",
    ]
    assert list(read_documents([f"{shards}/a-?.json*"])) == DOCUMENTS
    (tmp_path / "really[1].txt").write_text("text")
    assert list(read_documents([tmp_path / "really[1].txt"])) == ["text"]
    (tmp_path / "empty").mkdir()
    for nothing in (f"{shards}/x*", tmp_path / "empty"):
        with pytest.raises(InputError, match="has no files"):
            find_files([nothing])
    with pytest.raises(InputError, match=r"README\* has no file of a known kind; known are \.txt"):
        find_files([f"{shards}/README*"])


def test_options_without_effect_are_named(tmp_path, caplog):
    (tmp_path / "in.jsonl").write_text('{"body": "x"}\n')
    list(read_documents([tmp_path / "in.jsonl"], key="body", blank_line_separated=True))
    assert caplog.messages == ["--split-blank-lines has no effect: it is for .txt, and there is none"]
    caplog.clear()
    (tmp_path / "in.txt").write_text("x")
    list(read_documents([tmp_path / "in.txt"], key="body", blank_line_separated=True))
    assert caplog.messages == ['--key = "body" has no effect: .txt files have no keys']


GOOD = b'{"text": "fine"}\n'
BAD = [
    ("in.jsonl", GOOD + b'{"text": "\xff"}\n', "line 2: byte 0xff at column 11 is not UTF-8"),
    ("in.jsonl", GOOD + b"[1]\n", 'line 2: not an object with the key "text"'),
    ("in.jsonl", GOOD + b'\n{"body": "x"}\n', r'line 3: no text under key "text" \(it has body\)'),
    ("in.jsonl", GOOD + b'{"text": 5}\n', r'line 2: no text under key "text" \(it is a int\)'),
    ("in.jsonl", GOOD + b'{"text": "x', "line 2: not JSON"),
    ("in.json", b"nonsense\n" + GOOD, "line 1: not JSON"),
    ("in.jsonl", b"[1]\n" + GOOD, "line 1: not an object"),
    ("in.jsonl", GOOD + b'{"text": "\\ud800"}\n', "line 2: .* half of a surrogate pair"),
    ("in.json", b'[{"text": "fine"},\n {"body": "x"}]', "item 2: no text under key"),
    ("in.txt", b"fine\nthr\xe9e\n", "line 2: byte 0xe9 at column 4 is not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), BAD)
def test_what_cannot_be_read_is_named_or_left_out_and_counted(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence) as error:
        build_dataset([path], tmp_path / "out", BYTE)
    assert str(path) in str(error.value)
    assert not list(tmp_path.glob("*out*"))
    bad = BadLines(skip=True)
    assert [text.strip() for text in read_documents([path], bad_lines=bad)] == ["fine"]
    assert bad.count == 1
    assert bad.first == str(error.value)


def test_files_that_are_bad_as_a_whole_are_refused(tmp_path):
    (tmp_path / "in.json").write_text('[{"text": "x"},\n{"text": ')
    with pytest.raises(InputError, match=r"in\.json: not JSON \(Expecting value: line 2"):
        list(read_documents([tmp_path / "in.json"], bad_lines=BadLines(skip=True)))
    (tmp_path / "in.jsonl").write_text('{"body": "x"}\n' * 3)
    with pytest.raises(InputError, match=r"all 3 lines are bad; the first: .*in\.jsonl, line 1: no text"):
        list(read_documents([tmp_path / "in.jsonl"], bad_lines=BadLines(skip=True)))
    for name in ("in.csv", "in.parquet.gz", "in.tar.gz", "in"):
        with pytest.raises(InputError, match=r"is of no known kind; known are \.txt, \.json"):
            find_files([tmp_path / name])
