"""What a function is for, told from its docstring: labelled text that comes with every Python.

`python examples/docstrings.py FOLDER` writes `train.jsonl` and `valid.jsonl`: {"text": …, "label": …} a line.
A text is the first paragraph of the docstring of a function, class or method of the standard library, without
the words in it that are code; its label is the chapter of the library reference that its module belongs to.
Sources are read, not imported. The same Python gives the same files.
"""

import argparse
import ast
import hashlib
import json
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

CHAPTERS = {
    "text": "string re difflib textwrap unicodedata readline rlcompleter codecs encodings",
    "numbers": "numbers decimal _pydecimal fractions random statistics",
    "time": "datetime _pydatetime calendar zoneinfo sched _strptime",
    "files": "pathlib os posixpath ntpath shutil tempfile glob fnmatch filecmp fileinput stat linecache",
    "archives": "zipfile tarfile gzip bz2 lzma _compression zipimport",
    "concurrency": "threading multiprocessing concurrent subprocess queue asyncio selectors",
    "internet": "http urllib smtplib ftplib imaplib poplib socketserver xmlrpc wsgiref nntplib ssl socket",
    "mail and markup": "email mailbox mimetypes html xml json base64 quopri",
    "windows on screen": "tkinter turtle idlelib",
    "testing": "unittest doctest pdb bdb trace timeit cProfile profile pstats test",
    "language": "ast tokenize inspect dis importlib pickletools symtable lib2to3 types typing pkgutil",
}
"""Label → modules and packages."""
LEFT_OUT = re.compile(r"(^|/)(test|tests|idle_test|site-packages)/(?!support)")


def paragraphs(path: Path) -> Iterator[str]:
    """The first paragraph of every docstring but the module's."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):  # some are there to be wrong
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = (ast.get_docstring(node) or "").split("\n\n")[0]
            text = re.sub(r"\S*[_`'\"(){}<>=]\S*", " ", text)
            words = text.split()
            if len(words) >= 6:
                yield " ".join(words[:60])


def rows() -> list[tuple[str, str]]:
    """Texts with their labels, each text once, in an order that only their words decide."""
    library, found = Path(sysconfig.get_path("stdlib")), {}
    for label, modules in CHAPTERS.items():
        for module in modules.split():
            inside = sorted((library / module).rglob("*.py"))
            for path in [library / f"{module}.py", *inside]:
                if path.is_file() and not LEFT_OUT.search(path.relative_to(library).as_posix()):
                    for text in paragraphs(path):
                        found.setdefault(text, set()).add(label)
    single = [(text, labels.pop()) for text, labels in found.items() if len(labels) == 1]
    return sorted(single, key=lambda row: hashlib.sha256(row[0].encode()).digest())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    found = rows()
    valid = len(found) // 5
    for name, part in (("valid", found[:valid]), ("train", found[valid:])):
        lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in part)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(found) - valid} rows to learn from and {valid} to be told, of {len(CHAPTERS)} chapters")


if __name__ == "__main__":
    main()
