"""`mjx classify MODEL [FILE…]`: the classes of texts or pictures, or a number of each, by a trained model."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from mjx.commands.picture_files import read_pictures
from mjx.data.pairs.labelled import LabelledConfig
from mjx.data.pairs.rows import KINDS, read_rows, text_in
from mjx.data.pairs.surrounded import Surrounding
from mjx.errors import InputError
from mjx.inference.classify import Classifier
from mjx.inference.pictures import PictureClassifier
from mjx.launch.failure import end_together
from mjx.launch.runtime import start
from mjx.models.family import Classifies
from mjx.run.opened import OpenedModel, open_model, read_inference_config

Format = Literal["tsv", "jsonl"]
_LONGEST = 512
"""Tokens of a row, where neither a run nor a table of positions says it."""
_AT_ONCE = 8192
"""Texts that are read before the first of them are told."""


def classify(
    path: str,
    files: Sequence[str],
    overrides: Sequence[str],
    step: int | None,
    *,
    text_key: str | None,
    pair_key: str | None,
    batch_tokens: int | None,
    format: Format,
) -> None:
    """Print the label of each text with the probabilities of all, or its number, in the texts' order."""
    with end_together():
        if batch_tokens is not None and batch_tokens < 1:
            raise InputError(f"--batch-tokens {batch_tokens} must be at least 1")
        config = read_inference_config(path, overrides)
        processes = start(config.runtime)
        pictures = config.model.vocabulary is None
        if not files and not pictures and processes.num_processes > 1:
            raise InputError("standard input is one process's: with several, name the files of the texts")
        opened = open_model(path, config, step)
        _check_classifier(path, opened)
        write = _write_tsv if format == "tsv" else _write_jsonl
        if pictures:
            _classify_pictures(path, opened, files, write if processes.is_first else None)
            return
        trained_on = opened.data()
        trained_on = trained_on if isinstance(trained_on, LabelledConfig) else None
        classifier = _classifier(opened, trained_on, batch_tokens)
        tokenizer = opened.tokenizer()
        if trained_on is not None:
            text_key = text_key or trained_on.text_key
            pair_key = pair_key or trained_on.pair_key
        texts = _texts(files, text_key or "text", pair_key)
        names = classifier.model.class_names
        for number, some in enumerate(_chunks(texts, None if trained_on is None else trained_on.texts)):
            told = classifier(tokenizer, some)
            if processes.is_first:
                write(names, told, number == 0)


def _classify_pictures(path: str, opened: OpenedModel, files: Sequence[str], write: Any) -> None:
    """What a model of pictures says of some at a time, in the order of their files."""
    if not files:
        raise InputError("name the files of the pictures to classify, or a folder with them")
    tells = PictureClassifier(opened.model, opened.parameters, mesh=opened.mesh, rules=opened.rules)
    for number, (_, images) in enumerate(read_pictures(path, opened, files)):
        told = tells(images)
        if write is not None:
            write(opened.model.class_names, told, number == 0)


def _check_classifier(path: str, opened: OpenedModel) -> None:
    """Raise `InputError` if the model has no classes to tell."""
    if not isinstance(opened.model, Classifies) or getattr(opened.config.model, "classes", None) is None:
        raise InputError(
            f"{path} is a model without a classifier: train one from it, with init_from={path} and "
            "model.classes"
        )


def _classifier(opened: OpenedModel, data: LabelledConfig | None, batch_tokens: int | None) -> Classifier:
    """The model with what it has learnt its rows by, or else what its tokenizer says."""
    model, config = opened.model, opened.config.model
    tokenizer, vocabulary = opened.tokenizer(), config.vocabulary or 0
    around = (
        Surrounding.of(tokenizer, vocabulary) if data is None else data.surrounding(tokenizer, vocabulary)
    )
    takes = getattr(config, "longest_row", None)
    longest = min(takes or _LONGEST, _LONGEST) if data is None else data.sequence_length
    types = getattr(config, "token_types", 0) > 1 and (data is None or "token_types" in data.sequences)
    return Classifier(
        model,
        opened.parameters,
        mesh=opened.mesh,
        rules=opened.rules,
        around=around,
        longest=longest,
        token_types=types,
        batch_tokens=batch_tokens,
    )


def _texts(files: Sequence[str], text_key: str, pair_key: str | None) -> Iterator[tuple[str, list[str]]]:
    """Where each row stands, and its texts."""
    columns = [text_key, *(() if pair_key is None else (pair_key,))]
    if not files:
        yield from _lines(sys.stdin.buffer, "standard input")
    for file in files:
        if any(file.lower().removesuffix(packed).endswith(suffix) for suffix in KINDS for packed in _PACKED):
            for place, values in read_rows(file, columns):
                yield (
                    place,
                    [text_in(value, place, column) for value, column in zip(values, columns, strict=True)],
                )
        else:
            try:
                with open(file, "rb") as lines:
                    yield from _lines(lines, file)
            except OSError as error:
                raise InputError(f"{file} cannot be read: {error.strerror}") from error


_PACKED = ("", ".gz", ".bz2", ".xz", ".zst")


def _lines(lines, where: str) -> Iterator[tuple[str, list[str]]]:
    """A text a line, or two with a tab between."""
    for number, line in enumerate(lines, 1):
        place = f"{where}, line {number}"
        try:
            texts = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n").split("\t")
        except UnicodeDecodeError as error:
            raise InputError(f"{place}: not UTF-8 text") from error
        for text in texts:
            if not text.strip():
                raise InputError(f"{place}: the text is empty")
        yield place, texts


def _chunks(texts: Iterator[tuple[str, list[str]]], asked: int | None) -> Iterator[list[list[str]]]:
    """Many rows at a time, all with one text, or all with two.

    Raises:
        InputError: there is no row, or one has another number of texts.
    """
    some: list[list[str]] = []
    seen = False
    for place, row in texts:
        seen, wanted = True, asked or (len(some[0]) if some else min(len(row), 2))
        if len(row) != wanted:
            has = "is one text" if len(row) == 1 else f"are {len(row)} texts"
            needs = "one text a row" if wanted == 1 else "two texts a row, a tab or --pair-key between them"
            raise InputError(f"{place}: there {has}; " + (f"the model reads {needs}" if asked else needs))
        some.append(row)
        asked = wanted
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if not seen:
        raise InputError("there is no text to classify")
    if some:
        yield some


def _write_tsv(names: Sequence[str], told: np.ndarray, first: bool) -> None:
    if first:
        print("\t".join(["label", *(name.replace("\t", " ") for name in names)] if names else ["number"]))
    for row in told:
        label = [names[int(row.argmax())].replace("\t", " ")] if names else []
        print("\t".join([*label, *(f"{value:.6f}" for value in row)]))


def _write_jsonl(names: Sequence[str], told: np.ndarray, first: bool) -> None:
    for row in told:
        values = [round(float(value), 6) for value in row]
        if not names:
            print(json.dumps({"number": values[0]}))
            continue
        label = names[int(row.argmax())]
        said = {"label": label, "probabilities": dict(zip(names, values, strict=True))}
        print(json.dumps(said, ensure_ascii=False))
