"""Rows of texts → `.bin/.idx` in the cache: a document a row, and a sequence each of its texts."""

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int64, Shaped

from mjx.data.cache import build_once, save_array
from mjx.data.documents import find_files
from mjx.data.indexed import IndexedDataset, IndexedDatasetWriter, gather, token_dtype
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


def text_lengths(dataset: PairedDataset, documents: range, texts: int) -> Int64[np.ndarray, "rows texts"]:
    """The tokens of each text of some documents."""
    lengths = dataset.sequence_lengths[texts * documents.start : texts * documents.stop]
    return lengths.astype(np.int64).reshape(-1, texts)


def tokens_of(
    dataset: PairedDataset,
    documents: Int[np.ndarray, "rows"],
    kept: Int64[np.ndarray, "rows texts"],
    vocab_size: int,
) -> Int[np.ndarray, "tokens"]:
    """The first tokens of each text of some documents, so many of each, one after another."""
    texts = kept.shape[1]
    sequences = texts * documents[:, None] + np.arange(texts)
    sources = dataset.sequence_pointers[sequences] // dataset.dtype.itemsize
    return gather(dataset, sources.reshape(-1), kept.reshape(-1), vocab_size)


def warn_of_cut_rows(cut: Any, longest: int) -> None:
    """Where there are any."""
    if cut.any():
        logging.getLogger("mjx").warning(
            "%d of %d rows have more than data.sequence_length = %d tokens, and are cut",
            *(cut.sum(), len(cut), longest),
        )


def _states(paths: list[str]) -> list[list[Any]]:
    """What tells a file from what it was before."""
    files = []
    for path in map(Path, paths):
        if not (path.exists() or any(sign in str(path) for sign in "*?[")):
            raise InputError(f"{path} does not exist.")
        files += [path] if path.is_file() else [file for file, _ in find_files([path], KINDS)]
    return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
