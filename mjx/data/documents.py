"""Text files → documents: plain text, JSON, Parquet; compressed or not; files, folders and patterns."""

import importlib
import io
import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import iglob
from pathlib import Path
from typing import Any, BinaryIO

from mjx.data.tokenizers.protocol import optional_package
from mjx.errors import InputError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma", ".zst": "pyarrow"}
"""Last suffix → the module that reads it."""
KINDS = {".txt": "text", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet"}
"""Suffix (before that of a compression) → what is in the file. Capitals do not matter."""

_NEVER_COMPRESSED = ("parquet", "tar", "picture")
_BYTE_ORDER_MARK = "\ufeff"


class BadLines:
    """Lines (rows, items) that cannot be read: the first is an error, or all are left out and counted."""

    def __init__(self, *, skip: bool = False) -> None:
        self.skip = skip
        self.count = 0
        self.first = ""
        """What is wrong with the first, and where it is."""

    def add(self, sentence: str, cause: Exception | None = None) -> None:
        if not self.skip:
            raise InputError(sentence) from cause
        self.count += 1
        self.first = self.first or sentence


def read_documents(
    inputs: Sequence[str | os.PathLike[str]],
    *,
    key: str = "text",
    blank_line_separated: bool = False,
    lines: bool = False,
    bad_lines: BadLines | None = None,
) -> Iterator[str]:
    """The documents of text files, in order; the kind of a file is its suffix.

    Args:
        inputs: As `find_files` takes them.
        key: The key of the text in a JSON object, the column of the text in a Parquet file.
        blank_line_separated: A .txt file holds many documents, with blank lines between them.
        lines: Every line of a .txt file is a document, those that are empty too.
        bad_lines: What is done with lines that cannot be read (None: the first is an error).

    Raises:
        InputError: names the file and the line of what cannot be read.
    """
    bad = bad_lines or BadLines()
    files = find_files(inputs)
    kinds = {kind for _, kind in files}
    if blank_line_separated and "text" not in kinds:
        logging.getLogger("mjx").warning(
            "--split-blank-lines has no effect: it is for .txt, and there is none"
        )
    if key != "text" and kinds == {"text"}:
        logging.getLogger("mjx").warning('--key = "%s" has no effect: .txt files have no keys', key)
    found = False
    for path, kind in files:
        if kind == "parquet":
            rows = parquet_rows(path, [key])
            texts = (
                text
                for place, (value,) in rows
                for text in checked_text(value, place, f'column "{key}"', [key], bad)
            )
        elif kind == "json":
            records = json_records(path, bad)
            texts = (text for place, record in records for text in _text_of(record, key, place, bad))
        elif blank_line_separated:
            texts = _paragraphs(path, bad)
        elif lines:
            texts = (line.rstrip("\r\n") for _, line in read_lines(path, bad))
        else:
            texts = iter(["".join(text for _, text in read_lines(path, bad))])
        for text in texts:
            found = True
            yield text
    if bad.count and not found:
        raise InputError(f"all {bad.count} lines are bad; the first: {bad.first}")


def find_files(
    inputs: Sequence[str | os.PathLike[str]], kinds: Mapping[str, str] = KINDS
) -> list[tuple[Path, str]]:
    """Files and their kinds: those that are named, and of a folder (with the folders inside it) or a pattern
    (`shards/*.jsonl`) all that have a known kind, by name.

    Args:
        inputs: Files, folders and patterns.
        kinds: As `KINDS`, the last being those which are not compressed: Parquet and tar files.

    Raises:
        InputError: a file does not exist or is of no known kind, or a folder or pattern has none.
    """
    files: list[tuple[Path, str]] = []
    for path in map(Path, inputs):
        given = str(path)
        if path.is_dir():
            inside = (file for file in path.rglob("*") if not _is_hidden(file.relative_to(path)))
            files += _shards(given, inside, kinds)
        elif not path.exists() and any(sign in given for sign in "*?["):
            files += _shards(given, map(Path, iglob(given, recursive=True)), kinds)
        elif (kind := _kind(path, kinds)) is None:
            raise InputError(f"{path} is of no known kind; known are {known_kinds(kinds)}.")
        elif not path.is_file():
            raise InputError(f"{path} does not exist.")
        else:
            files.append((path, kind))
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _shards(given: str, paths: Iterable[Path], kinds: Mapping[str, str]) -> list[tuple[Path, str]]:
    files = sorted(path for path in paths if path.is_file())
    if not files:
        raise InputError(f"{given} has no files.")
    shards = [(path, kind) for path in files if (kind := _kind(path, kinds)) is not None]
    others = [path.name for path in files if _kind(path, kinds) is None]
    if not shards:
        raise InputError(f"{given} has no file of a known kind; known are {known_kinds(kinds)}.")
    if others:
        logging.getLogger("mjx").warning(
            "%s: left out %d files of other kinds (%s)", given, len(others), ", ".join(others[:3])
        )
    return shards


def known_kinds(kinds: Mapping[str, str]) -> str:
    """The ends of file names that are read, as a sentence lists them."""
    *others, last = kinds
    whole = sum(kind in _NEVER_COMPRESSED for kind in kinds.values())
    if whole == len(kinds):
        return f"{', '.join(others)} and {last}"
    these = "the last" if whole == 1 else f"the last {whole}"
    return f"{', '.join(others)} and {last}, and all but {these} with .gz, .bz2, .xz or .zst"


def _kind(path: Path, kinds: Mapping[str, str]) -> str | None:
    suffix = path.suffix.lower()
    if suffix not in COMPRESSIONS:
        return kinds.get(suffix)
    kind = kinds.get(path.with_suffix("").suffix.lower())
    return None if kind in _NEVER_COMPRESSED else kind


def _open(path: Path) -> BinaryIO:
    module = COMPRESSIONS.get(path.suffix.lower())
    if module is None:
        return path.open("rb")
    if module == "pyarrow":
        stream = optional_package(module, path).input_stream(str(path), compression="zstd")
        return io.BufferedReader(stream)  # pyright: ignore[reportArgumentType]
    return importlib.import_module(module).open(path, "rb")


def read_lines(path: Path, bad: BadLines) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        opened = _open(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    with opened as file:
        while True:
            try:
                line = file.readline()
            except Exception as error:  # each decompressor has its own
                raise InputError(
                    f"{path} cannot be read beyond line {number}: it is damaged or cut off ({error})."
                ) from error
            if not line:
                return
            number += 1
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                byte = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
                bad.add(f"{path}, line {number}: {byte} is not UTF-8.", error)
                continue
            yield number, text.removeprefix(_BYTE_ORDER_MARK) if number == 1 else text


def _paragraphs(path: Path, bad: BadLines) -> Iterator[str]:
    lines: list[str] = []
    for _, line in read_lines(path, bad):
        if line.strip():
            lines.append(line)
        elif lines:
            yield "".join(lines).rstrip("\r\n")
            lines = []
    if lines:
        yield "".join(lines).rstrip("\r\n")


def json_records(path: Path, bad: BadLines) -> Iterator[tuple[str, Any]]:
    """The values of a JSON file and where each stands: an object a line; or one array of objects, or one
    object, over as many lines as it likes."""
    lines = read_lines(path, bad)
    begun = list(itertools.islice((line for line in lines if line[1].strip()), 1))
    if not begun:
        return
    number, first = begun[0]
    is_array, is_whole = first.lstrip().startswith("["), _is_json(first)
    if is_array or not is_whole:
        begun += lines
        try:
            # As many lines as in the file, so that the parser's line is the file's.
            value = json.loads("\n" * (number - 1) + "".join(line for _, line in begun))
        except ValueError as error:
            if is_array and not is_whole:
                raise InputError(f"{path}: not JSON ({error}).") from error
        else:
            for item, record in enumerate(value, 1) if isinstance(value, list) else [(0, value)]:
                yield f"{path}, item {item}" if item else str(path), record
            return
    for number, line in itertools.chain(begun, lines):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line.removeprefix(_BYTE_ORDER_MARK))
        except ValueError as error:
            bad.add(f"{place}: not JSON ({error}).", error)
            continue
        yield place, record


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """The values of some columns of each row of a Parquet file, and where it stands."""
    optional_package("pyarrow", path)
    parquet = optional_package("pyarrow.parquet", path)
    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for column in columns:
                if column not in names:
                    raise InputError(f'{path} has no column "{column}"; it has {", ".join(names)}.')
            for batch in file.iter_batches(columns=list(columns)):
                values = [batch.column(column).to_pylist() for column in columns]
                for each in zip(*values, strict=True):
                    row += 1
                    yield f"{path}, row {row}", list(each)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # pyarrow's errors are both
        if not row:
            raise InputError(f"{path} is not a parquet file: {error}.") from error
        raise InputError(f"{path} cannot be read beyond row {row}: it is damaged ({error}).") from error


def _text_of(record: Any, key: str, place: str, bad: BadLines) -> Iterator[str]:
    """The text of a JSON object, if it has one."""
    if isinstance(record, dict):
        yield from checked_text(record.get(key), place, f'key "{key}"', list(record), bad)
    else:
        bad.add(f'{place}: not an object with the key "{key}".')


def checked_text(value: object, place: str, name: str, keys: list[str], bad: BadLines) -> Iterator[str]:
    """The value, if it is a text."""
    if not isinstance(value, str):
        found = f"it has {', '.join(keys) or 'none'}" if value is None else f"it is a {type(value).__name__}"
        bad.add(f"{place}: no text under {name} ({found}).")
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        bad.add(f"{place}: {name} has half of a surrogate pair, which is no text.", error)
        return
    yield value
