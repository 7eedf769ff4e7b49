"""What a model that sees asks of whoever prepares its pictures."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image

    from mjx.models.common.pictures import View


class PictureProcessor(Protocol):
    """A decoded picture → what the encoder sees of it.

    How many tokens that takes in a text is not the processor's to say: `Sees.places` of the model does
    (`mjx.models.family`), and `PictureMarks` which other tokens stand around and between them.
    """

    @property
    def channels(self) -> int:
        """Of the pictures that it takes: 3 colours, or 1 of grey."""
        ...

    def __call__(self, picture: "Image") -> "View":
        """One array where the encoder sees the picture at once, whatever its size; else `Tiles`."""
        ...
