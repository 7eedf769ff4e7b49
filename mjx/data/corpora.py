"""Texts that every machine with Python has: something real to train on before there is data."""

import ast
import hashlib
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from mjx.errors import InputError

_DEFINITION = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_NOT_READ = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "lib2to3",
    "pydoc_data",
}


def corpus(name: str) -> list[str]:
    """The documents of a corpus, each once, always in the same order for one version of Python.

    The order is that of a digest of the documents, so that a split by document ranges is a fair one.

    Raises:
        InputError: there is no corpus of this name.
    """
    if name not in CORPORA:
        raise InputError(f'data.corpus = "{name}" is not known; known are {", ".join(sorted(CORPORA))}.')
    documents = {hashlib.blake2b(text.encode(), digest_size=16).digest(): text for text in CORPORA[name]()}
    return [documents[digest] for digest in sorted(documents)]


def _python_docs() -> Iterator[str]:
    """The topics of the language reference, as `help()` shows them, and the library's docstrings."""
    from pydoc_data import topics

    yield from (text.strip() + "\n" for text in topics.topics.values())
    library = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if _NOT_READ.isdisjoint(parts):
            yield from _docstrings(path, ".".join(parts).removesuffix(".__init__"), seen)


def _docstrings(path: Path, module: str, seen: set[str]) -> Iterator[str]:
    """A document for the module and for each class or function at its top, with the docstrings within."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the escapes in old modules
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # templates, and files of another encoding on purpose
    tops = [(node, f"{module}.{node.name}") for node in tree.body if isinstance(node, _DEFINITION)]
    for node, name in [(tree, module), *tops]:
        texts = []
        for inner, inner_name in _definitions(node, name):
            text = ast.get_docstring(inner, clean=False)
            if text and text not in seen:
                seen.add(text)
                texts.append(f"{inner_name}\n\n{inspect.cleandoc(text)}\n")
        if texts:
            document = "\n".join(texts)
            if document.isascii() or _is_text(document):
                yield document


def _definitions(node, name: str) -> Iterator[tuple]:
    yield node, name
    if isinstance(node, ast.ClassDef):
        for child in node.body:
            if isinstance(child, _DEFINITION):
                yield from _definitions(child, f"{name}.{child.name}")


def _is_text(document: str) -> bool:
    try:
        document.encode()
    except UnicodeEncodeError:  # a lone surrogate, in a docstring about them
        return False
    return True


CORPORA = {"python-docs": _python_docs}
