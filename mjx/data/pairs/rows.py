"""Rows of files: JSON objects, tab- and comma-separated lines, rows of Parquet, lines of two files side by
side."""

import csv
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mjx.data.documents import BadLines, checked_text, find_files, json_records, parquet_rows, read_lines
from mjx.errors import InputError

KINDS = {
    ".tsv": "tsv",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
"""Suffix (before that of a compression) → what is in the file."""

Row = tuple[str, list[Any]]
"""Where it stands, and its values."""


def read_rows(
    path: str | os.PathLike[str], columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[Row]:
    """The values of some columns of each row.

    Args:
        path: A file, or a folder or pattern whose files follow one another by name.
        columns: Keys of JSON objects, or columns of Parquet and of files of tab-separated or comma-separated
            lines, the first of which names them; if all are numbers there, that line is a row, and columns
            are counted from 1.
        optional: Columns that a JSON object may lack; their value is None then. Other files must have them.

    Raises:
        InputError: names the file and the line of what cannot be read, or lacks a column.
    """
    for file, kind in find_files([path], KINDS):
        if kind == "json":
            yield from _objects(file, columns, optional)
        elif kind in ("tsv", "csv"):
            yield from _separated(file, columns, kind)
        else:
            yield from parquet_rows(file, columns)


def read_lines_together(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> Iterator[Row]:
    """The lines of two files of text, line by line.

    Raises:
        InputError: one has more lines than the other, or a line is empty.
    """
    paths = [Path(first), Path(second)]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} does not exist.")
    one, other = (read_lines(path, BadLines()) for path in paths)
    number = 0
    for number, pair in enumerate(itertools.zip_longest(one, other), 1):
        if None in pair:
            short, long = (paths[0], paths[1]) if pair[0] is None else (paths[1], paths[0])
            more = sum(1 for _ in (one if long == paths[0] else other))
            raise InputError(
                f"{short} has {number - 1} lines and {long} has {number + more}: line by line they are "
                "pairs, so both must have as many."
            )
        texts = [line[1].rstrip("\r\n") for line in pair if line is not None]
        for path, text in zip(paths, texts, strict=True):
            if not text.strip():
                raise InputError(f"{path}, line {number}: the line is empty.")
        yield f"{paths[0]}, line {number}", texts


def text_in(value: Any, place: str, column: str) -> str:
    """The value, if it is a text that is not empty.

    Raises:
        InputError: it is not; names the place and the column.
    """
    (text,) = checked_text(value, place, f'"{column}"', [], BadLines())
    if not text.strip():
        raise InputError(f'{place}: the text under "{column}" is empty.')
    return text


def _objects(file: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Row]:
    for place, record in json_records(file, BadLines()):
        if not isinstance(record, dict):
            raise InputError(f"{place}: not an object with the keys {_quoted(columns)}.")
        for column in columns:
            if column not in record and column not in optional:
                raise InputError(f'{place}: no key "{column}"; it has {_quoted(list(record)) or "none"}.')
        yield place, [record.get(column) for column in columns]


def _separated(file: Path, columns: Sequence[str], kind: str) -> Iterator[Row]:
    counted = all(column.isdecimal() for column in columns)
    places = [int(column) - 1 for column in columns] if counted else []
    if counted and min(places) < 0:
        raise InputError(f"{file}: columns are counted from 1, and not from 0.")
    width = None
    for number, values in (_commas if kind == "csv" else _tabs)(file):
        if not any(value.strip() for value in values):
            raise InputError(f"{file}, line {number}: the line is empty.")
        if width is None and not counted:
            for column in columns:
                if column not in values:
                    raise InputError(
                        f'{file}, line 1: no column "{column}"; it has {_quoted(values)}. (Where the first '
                        "line does not name the columns, they are called by their numbers, from 1.)"
                    )
            places = [values.index(column) for column in columns]
            width = len(values)
            continue
        width = width or len(values)
        if len(values) != width:
            raise InputError(f"{file}, line {number}: it has {len(values)} columns, and line 1 has {width}.")
        if max(places) >= width:
            raise InputError(
                f"{file}, line {number}: it has {width} columns, and no column {max(places) + 1}."
            )
        yield f"{file}, line {number}", [values[place] for place in places]


def _tabs(file: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(file, BadLines()):
        yield number, line.rstrip("\r\n").split("\t")


def _commas(file: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((line for _, line in read_lines(file, BadLines())), strict=True)
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{file}, line {reader.line_num}: not comma-separated ({error}).") from error
        yield reader.line_num, values


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
