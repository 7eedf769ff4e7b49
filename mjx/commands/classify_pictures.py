"""`mjx classify MODEL FILE…` of a model that reads pictures."""

from collections.abc import Iterator, Sequence

import numpy as np

from mjx.commands.picture_files import read_pictures
from mjx.errors import InputError
from mjx.inference.pictures import PictureClassifier
from mjx.run.opened import OpenedModel


def told_pictures(path: str, opened: OpenedModel, files: Sequence[str]) -> Iterator[np.ndarray]:
    """What a model of pictures says of some at a time, in the order of their files.

    Raises:
        InputError: a file is no picture that can be read, or nothing says how the model wants pictures.
    """
    if not files:
        raise InputError("name the files of the pictures to classify, or a folder with them")
    classifier = PictureClassifier(opened.model, opened.parameters, mesh=opened.mesh, rules=opened.rules)
    for _, images in read_pictures(path, opened, files):
        yield classifier(images)
