"""`mjx classify MODEL FILE…` of a model that reads pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mjx.data.documents import find_files
from mjx.data.images.decode import SUFFIXES, BrokenPictureError, decoded
from mjx.data.images.labelled import LabelledPicturesConfig
from mjx.data.images.prepare import PreparationConfig
from mjx.data.images.processor import FILE, preparation_of
from mjx.errors import InputError
from mjx.inference.pictures import PictureClassifier
from mjx.models.interop.stored_file import read_object
from mjx.run.opened import OpenedModel

_AT_ONCE = 256
"""Pictures that are read before the first of them are told."""
_KINDS = dict.fromkeys(SUFFIXES, "picture")


def told_pictures(path: str, opened: OpenedModel, files: Sequence[str]) -> Iterator[np.ndarray]:
    """What a model of pictures says of some at a time, in the order of their files.

    Raises:
        InputError: a file is no picture that can be read, or nothing says how the model wants pictures.
    """
    if not files:
        raise InputError("name the files of the pictures to classify, or a folder with them")
    paths = [file for file, _ in find_files(files, _KINDS)]
    prepare = _preparation(path, opened)
    classifier = PictureClassifier(opened.model, opened.parameters, mesh=opened.mesh, rules=opened.rules)
    for start in range(0, len(paths), _AT_ONCE):
        yield classifier([_read(file, prepare) for file in paths[start : start + _AT_ONCE]])


def _preparation(path: str, opened: OpenedModel) -> PreparationConfig:
    """As in the run that made the model, or as its Hugging Face folder says."""
    trained_on = opened.data()
    if isinstance(trained_on, LabelledPicturesConfig):
        return trained_on.image
    file = None if opened.companions is None else opened.companions.path / FILE
    if file is None or not file.exists():
        raise InputError(f"{path} has no {FILE}, which says how pictures are made ready for the model")
    return preparation_of(read_object(file), str(file))


def _read(file: Path, prepare: PreparationConfig) -> np.ndarray:
    try:
        return prepare(decoded(file.read_bytes(), prepare.channels))
    except (BrokenPictureError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise InputError(f"{file} cannot be read: {why or error}") from error
