"""`mjx classify MODEL FILE…` of a model that reads pictures."""

from collections.abc import Iterator, Sequence

import numpy as np

from mjx.commands.pictures import processor_for, read_picture
from mjx.data.documents import find_files
from mjx.data.images.decode import SUFFIXES
from mjx.errors import InputError
from mjx.inference.pictures import PictureClassifier
from mjx.models.common.pictures import Picture, Tiles, View
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
    prepare = processor_for(path, opened)
    classifier = PictureClassifier(opened.model, opened.parameters, mesh=opened.mesh, rules=opened.rules)
    for start in range(0, len(paths), _AT_ONCE):
        read = [prepare(read_picture(file, prepare.channels)) for file in paths[start : start + _AT_ONCE]]
        yield classifier([_whole(path, view) for view in read])


def _whole(path: str, view: View) -> Picture:
    if isinstance(view, Tiles):
        raise InputError(f"{path} has a processor that cuts pictures into tiles, which no classifier tells")
    return view
