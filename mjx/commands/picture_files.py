"""Files of pictures, read as an opened model wants them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mjx.data.documents import find_files
from mjx.data.images.decode import SUFFIXES, BrokenPictureError, decoded
from mjx.data.images.prepare import PreparationConfig
from mjx.data.images.processor import FILE, preparation_of
from mjx.errors import InputError
from mjx.models.interop.stored_file import read_object
from mjx.run.opened import OpenedModel

_AT_ONCE = 256
"""Pictures that are held in memory at once."""
_KINDS = dict.fromkeys(SUFFIXES, "picture")


def are_pictures(files: Sequence[str]) -> bool:
    """Whether these are pictures, or folders with some.

    Raises:
        InputError: some are, and some are not.
    """
    found = [_is_picture(Path(file)) for file in files]
    if any(found) and not all(found):
        others = [file for file, is_one in zip(files, found, strict=True) if not is_one]
        raise InputError(
            f"{others[0]} is no picture, nor a folder with some, and others are; name one kind at a time"
        )
    return any(found)


def _is_picture(path: Path) -> bool:
    if path.is_dir():
        return any(file.suffix.lower() in SUFFIXES for file in path.rglob("*"))
    return path.suffix.lower() in SUFFIXES


def read_pictures(
    path: str, opened: OpenedModel, files: Sequence[str]
) -> Iterator[tuple[list[Path], list[np.ndarray]]]:
    """The pictures of files and folders in the order of their names, some at a time, made ready for a model.

    Args:
        path: The model's, for messages.
        opened: The model.
        files: What is named.

    Raises:
        InputError: a file is no picture that can be read, or nothing says how the model wants pictures.
    """
    paths = [file for file, _ in find_files(files, _KINDS)]
    prepare = _preparation(path, opened)
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        yield some, [_read(file, prepare) for file in some]


def _preparation(path: str, opened: OpenedModel) -> PreparationConfig:
    """As in the run that made the model, or as its Hugging Face folder says."""
    trained_on = getattr(opened.data(), "image", None)
    if isinstance(trained_on, PreparationConfig):
        return trained_on
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
