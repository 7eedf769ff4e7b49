"""Pictures that are named on the command line, made ready for a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mjx.data.images.decode import BrokenPictureError, decoded
from mjx.data.images.marks import PictureMarks
from mjx.data.images.processor import read_marks, read_processor
from mjx.data.images.protocol import PictureProcessor
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError
from mjx.inference.seen_prompts import SeenPictures
from mjx.models.family import Sees
from mjx.run.opened import OpenedModel

if TYPE_CHECKING:
    from PIL.Image import Image


def processor_for(path: str, opened: OpenedModel) -> PictureProcessor:
    """As in the run that made the model, or as its Hugging Face folder says.

    Raises:
        InputError: nothing says how the model wants pictures.
    """
    trained_on = opened.data()
    processor = None if trained_on is None else trained_on.picture_processor
    if processor is not None:
        return processor
    return read_processor(Path(path) if opened.companions is None else opened.companions.path)


def read_picture(file: str | Path, channels: int = 3) -> "Image":
    """The decoded picture.

    Raises:
        InputError: there is no such file, or it is no picture that can be read.
    """
    try:
        return decoded(Path(file).read_bytes(), channels)
    except (BrokenPictureError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise InputError(f"{file} cannot be read: {why or error}") from error


def seen_pictures(
    path: str, opened: OpenedModel, tokenizer: Tokenizer, prompts: Sequence[str], files: Sequence[str]
) -> SeenPictures | None:
    """Which pictures stand in which prompt; None of a model that does not see.

    Each prompt takes as many as it has marks, in order. Where none has any, one prompt takes all pictures,
    and of several each takes one, or all the same.

    Raises:
        InputError: there are more or fewer pictures than marks, or one cannot be read, or the model does not
            see them.
    """
    model = opened.model
    if not isinstance(model, Sees):
        if files:
            raise InputError(f"{path} is a model that does not see, so leave out --image")
        return None
    spelled = tokenizer.token(model.image_token) or "<image>"
    marks = PictureMarks(image=spelled)
    if opened.companions is not None:
        marks = read_marks(opened.companions.path, spelled)
    processor = processor_for(path, opened) if files else None
    views = [] if processor is None else [processor(read_picture(file, processor.channels)) for file in files]
    numbers = [marks.number(prompt) for prompt in prompts]
    if not any(numbers) and views:
        if len(prompts) == 1:
            return SeenPictures([views], marks)
        if len(views) not in (1, len(prompts)):
            raise InputError(
                f"there are {len(views)} --image for {len(prompts)} prompts; say by {marks.marks[0]} in the "
                "prompts where they stand, or give one for each"
            )
        each = views * len(prompts) if len(views) == 1 else views
        return SeenPictures([[view] for view in each], marks)
    if sum(numbers) != len(views):
        raise InputError(
            f"the prompts have {sum(numbers)} marks {marks.marks[0]}, but there are {len(views)} --image; "
            "give one for each"
        )
    left = iter(views)
    return SeenPictures([[next(left) for _ in range(number)] for number in numbers], marks)
