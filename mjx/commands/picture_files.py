"""Files of pictures, read as an opened model wants them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mjx.commands.pictures import processor_for, read_picture
from mjx.data.documents import find_files
from mjx.data.images.decode import SUFFIXES
from mjx.errors import InputError
from mjx.models.common.pictures import Picture, Tiles, View
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
) -> Iterator[tuple[list[Path], list[Picture]]]:
    """The pictures of files and folders in the order of their names, some at a time, made ready for a model.

    Args:
        path: The model's, for messages.
        opened: The model.
        files: What is named.

    Raises:
        InputError: a file is no picture that can be read, or nothing says how the model wants pictures.
    """
    paths = [file for file, _ in find_files(files, _KINDS)]
    prepare = processor_for(path, opened)
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        yield some, [_whole(path, prepare(read_picture(file, prepare.channels))) for file in some]


def _whole(path: str, view: View) -> Picture:
    if isinstance(view, Tiles):
        raise InputError(f"{path} has a processor that cuts pictures into tiles, which only texts hold")
    return view
