"""Rows of texts → `.bin/.idx` in the cache: a document a row, and a sequence each of its texts."""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from mjx.data.cache import build_once, save_array
from mjx.data.documents import find_files
from mjx.data.indexed import IndexedDataset, IndexedDatasetWriter, token_dtype
from mjx.data.pairs.rows import KINDS
from mjx.data.tokenizers import Tokenizer, fingerprint
from mjx.errors import InputError

_FORMAT = 1
"""Part of the cache key: raised when what is cached changes its meaning."""
_AT_ONCE = 4096

Texts = tuple[str, list[str], float]
"""Where a row stands, its texts, and its label (0 where there is none)."""


class PairedDataset(IndexedDataset):
    """Documents of one text or two, and a label of each."""

    labels: Shaped[np.ndarray, "documents"]

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        super().__init__(prefix)
        self.labels = np.load(f"{os.fspath(prefix)}-labels.npy", mmap_mode="r")


def prepare_rows(
    paths: list[str],
    rows: Callable[[], Iterator[Texts]],
    tokenizer: Tokenizer,
    cache_dir: str | os.PathLike[str],
    key: Mapping[str, Any],
    timeout: float = 3600.0,
) -> PairedDataset:
    """The tokens of rows, made by the first process that asks; later calls only open the files.

    Args:
        paths: The files (folders, patterns) that the rows are read from: when one changes, all is made anew.
        rows: Reads them.
        tokenizer: Makes the tokens.
        cache_dir: Where they are kept.
        key: What else they depend on.
        timeout: Seconds to wait for another process.

    Raises:
        InputError: a row cannot be read, or has a text without a token; or there is none.
    """
    text = json.dumps(
        {"format": _FORMAT, "files": _states(paths), "tokenizer": fingerprint(tokenizer), **key},
        indent=2,
        sort_keys=True,
    )

    def build(folder: Path) -> None:
        labels: list[float] = []
        with IndexedDatasetWriter(folder / "rows", token_dtype(tokenizer.vocab_size)) as writer:
            found = rows()
            while some := list(itertools.islice(found, _AT_ONCE)):
                encoded = iter(tokenizer.encode_batch([text for _, texts, _ in some for text in texts]))
                for place, texts, label in some:
                    for text in texts:
                        tokens = next(encoded)
                        if not tokens:
                            raise InputError(f"{place}: the tokenizer makes no token of {text!r}.")
                        writer.add_sequence(tokens)
                    writer.end_document()
                    labels.append(label)
        if not labels:
            raise InputError(f"{' and '.join(paths)}: there is no row.")
        save_array(folder / "rows-labels.npy", np.array(labels))
        (folder / "description.json").write_text(text, encoding="utf-8")

    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    folder = Path(cache_dir) / f"rows-{digest}"
    return build_once(folder, build, lambda folder: PairedDataset(folder / "rows"), timeout)


def _states(paths: list[str]) -> list[list[Any]]:
    """What tells a file from what it was before."""
    files = []
    for path in map(Path, paths):
        if not (path.exists() or any(sign in str(path) for sign in "*?[")):
            raise InputError(f"{path} does not exist.")
        files += [path] if path.is_file() else [file for file, _ in find_files([path], KINDS)]
    return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
