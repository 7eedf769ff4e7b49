"""examples/handbook_pairs.py: which texts of two pages become pairs."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "handbook_pairs.py"
PAGE = """<html><head><style>p {{}}</style></head><body>
<h2 class="title"><a id="x"></a>1.{number}. {title}</h2>
<div class="para">{text} <code>ls</code>.<br></div><pre>{title} $ ls</pre>
<div class="para">Not yet translated</div>
<ul><li class="item"><div class="para">{item}</div></li></ul></body></html>"""
ENGLISH = {"title": "Files {}", "text": "Two sentences {}. The second with", "item": "One: Two; Three {}"}
FRENCH = {
    "title": "Fichiers {}",
    "text": "Deux phrases {}. La seconde avec",
    "item": "Un et deux et trois {}",
}


def written(book: Path, output: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, SCRIPT, output, "--unpacked", book], capture_output=True, encoding="utf-8"
    )


def rows(path: Path) -> list[list[str]]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [[line["en"], line["fr"]] for line in lines]


def test_pages_become_rows_and_every_tenth_is_held_out(tmp_path):
    for language, texts in (("en-US", ENGLISH), ("fr-FR", FRENCH)):
        folder = tmp_path / "book" / "html" / language
        folder.mkdir(parents=True)
        for number in range(10):
            said = {name: text.format(number) for name, text in texts.items()}
            page = PAGE.format(number=number, **said)
            (folder / f"page{number}.html").write_text(page, encoding="utf-8")
    (tmp_path / "book" / "html" / "en-US" / "page3.html").write_text('<div class="para">One</div>')
    done = written(tmp_path / "book", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "page3.html: 1 texts and 4, left out" in done.stdout
    assert rows(tmp_path / "out" / "valid.jsonl") == [
        ["Files 9", "Fichiers 9"],
        ["Two sentences 9.", "Deux phrases 9."],
        ["One: Two; Three 9", "Un et deux et trois 9"],
    ]
    train = rows(tmp_path / "out" / "train.jsonl")
    assert train[:4] == [
        ["Files 0", "Fichiers 0"],
        ["Two sentences 0.", "Deux phrases 0."],
        ["The second with ls.", "La seconde avec ls."],
        ["One: Two; Three 0", "Un et deux et trois 0"],
    ]
    assert (tmp_path / "out" / "tokenizer" / "tokenizer.json").is_file()


def test_a_folder_without_the_book_is_refused(tmp_path):
    done = written(tmp_path, tmp_path / "out")
    assert done.returncode == 2
    assert "has no folder with en-US and fr-FR in it" in done.stderr
