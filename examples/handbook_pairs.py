"""Makes English–French pairs of the Debian Administrator's Handbook, for configs/t5/handbook-en-fr.yaml.

    python examples/handbook_pairs.py data/handbook-en-fr [--unpacked DIR] [--languages en-US fr-FR]

Writes train.jsonl and valid.jsonl, a sentence or heading a row under its language's two letters, and
tokenizer/, a byte-level BPE learnt from the former. The pages of both languages have the same elements in
the same order. A paragraph is cut into its sentences where both sides have as many, else it is one row;
dropped are console sessions, headings' numbers, and what a translator left as it was. Every tenth page is
held out.

The book is the package `debian-handbook` of Debian and Ubuntu (GPL-2+ or CC-BY-SA-3.0): `apt-get download`
and `dpkg-deb -x` bring it, or DIR is where it is unpacked (the folder with en-US and the others in it, or any
above).
"""

import argparse
import json
import re
import subprocess
import tempfile
from html.parser import HTMLParser
from pathlib import Path

from mjx.data.tokenizers import train_bpe
from mjx.errors import InputError
from mjx.files import new_folder

PACKAGE = "debian-handbook"
HEADINGS = ("h1", "h2", "h3", "h4")
UNWRITTEN = ("pre", "script", "style")
ALONE = ("area", "br", "col", "hr", "img", "input", "link", "meta")
"""Tags that nothing closes."""
HELD_OUT = 10
"""Of so many pages one."""
VOCABULARY = 2048
SENTENCE = re.compile(r"(?<=[.!?:;])\s+(?=[A-ZÀ-Ý0-9“«(])")
"""Between two of them."""
NUMBER = re.compile(r"^(?:[0-9A-Z]+\.)+[0-9]*\s+")
"""Of a heading."""


class Page(HTMLParser):
    """The headings and paragraphs of a page, in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._open: list[tuple[str, list[str] | None]] = []
        """Elements, with the words of those that are a text by themselves."""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ALONE:
            classes = (dict(attrs).get("class") or "").split()
            is_text = tag in HEADINGS or (tag == "div" and "para" in classes)
            self._open.append((tag, [] if is_text else None))

    def handle_endtag(self, tag: str) -> None:
        while tag in (name for name, _ in self._open):
            name, words = self._open.pop()
            if words is not None:
                self.texts.append(" ".join("".join(words).split()))
            if name == tag:
                return

    def handle_data(self, data: str) -> None:
        for tag, words in reversed(self._open):
            if tag in UNWRITTEN:
                return
            if words is not None:
                words.append(data)
                return


def pages(book: Path, languages: tuple[str, str]) -> list[list[tuple[str, str]]]:
    """The pairs of each page, by the pages' names."""
    found = []
    for path in sorted((book / languages[0]).glob("*.html")):
        other = book / languages[1] / path.name
        if not other.is_file():
            continue
        one, two = (Page(file.read_text(encoding="utf-8")).texts for file in (path, other))
        if len(one) != len(two):
            print(f"{path.name}: {len(one)} texts and {len(two)}, left out")
            one, two = [], []
        cut = (pair for texts in zip(one, two, strict=True) for pair in sentences(*texts))
        found.append([pair for pair in cut if all(pair) and pair[0] != pair[1]])
    return found


def sentences(one: str, other: str) -> list[tuple[str, str]]:
    """The pairs in a pair of paragraphs."""
    parts = [SENTENCE.split(NUMBER.sub("", text)) for text in (one, other)]
    same = len(parts[0]) == len(parts[1])
    return list(zip(*parts, strict=True)) if same else [(one, other)]


def book_in(folder: Path, languages: tuple[str, str]) -> Path:
    """Where the languages' folders are, in `folder` or below."""
    for candidate in (folder, *sorted(folder.rglob("html"))):
        if all((candidate / language).is_dir() for language in languages):
            return candidate
    raise InputError(f"{folder} has no folder with {' and '.join(languages)} in it")


def unpacked(folder: Path) -> None:
    """Bring the package, and unpack it there."""
    for command in (["apt-get", "download", PACKAGE], ["dpkg-deb", "-x", f"{PACKAGE}_*.deb", "."]):
        named = [str(next(folder.glob(word))) if "*" in word else word for word in command]
        try:
            subprocess.run(named, cwd=folder, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(
                f"{' '.join(command)} failed ({error}); unpack {PACKAGE} elsewhere, and give --unpacked DIR"
            ) from error


def write(output: Path, found: list[list[tuple[str, str]]], languages: tuple[str, str]) -> None:
    """The files, all of them or none."""
    keys = [language.partition("-")[0] for language in languages]
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "valid": []}
    for number, pairs in enumerate(found):
        parts["valid" if number % HELD_OUT == HELD_OUT - 1 else "train"] += pairs
    known = set(parts["train"])  # phrases that many pages have
    parts = {
        "train": list(dict.fromkeys(parts["train"])),
        "valid": [p for p in parts["valid"] if p not in known],
    }
    tokenizer = train_bpe((text for pair in parts["train"] for text in pair), VOCABULARY)
    with new_folder(output) as folder:
        for name, pairs in parts.items():
            rows = (json.dumps(dict(zip(keys, pair, strict=True)), ensure_ascii=False) for pair in pairs)
            (folder / f"{name}.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        tokenizer.save(folder / "tokenizer")
    print(f"{output}: {len(parts['train'])} pairs of {len(found)} pages, {len(parts['valid'])} held out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the folder to make")
    parser.add_argument("--unpacked", type=Path, metavar="DIR", help="where the package is unpacked")
    parser.add_argument("--languages", nargs=2, default=("en-US", "fr-FR"), metavar="LANGUAGE")
    options = parser.parse_args()
    languages = tuple(options.languages)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if options.unpacked is None:
                unpacked(Path(scratch))
            book = book_in(options.unpacked or Path(scratch), languages)
            write(options.output, pages(book, languages), languages)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
