"""What stands in a text where a picture does."""

import dataclasses
from collections.abc import Iterator, Sequence

from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileTags:
    """Text in front of each tile, which says its number (Dai et al. 2024, NVLM)."""

    tile: str = "<tile_{}>"
    """Of the first, second, … tile."""
    whole: str = "<tile_global_thumbnail>"
    """Of the whole picture, which stands behind the others, or alone."""
    digits: int = 1
    """Of a tile's number, with zeros in front."""

    def of(self, tiles: int) -> list[str]:
        """The tags of a picture of so many tiles, the whole among them."""
        numbers = (str(number).zfill(self.digits) for number in range(1, tiles))
        return [*(self.tile.format(number) for number in numbers), self.whole]


TILE_TAGS = {
    "nvlm": TileTags(),
    "chatml": TileTags(whole="<tile_global>"),
    "two digits": TileTags(digits=2),
}
"""As Megatron-LM's scripts write them, by their formats of prompts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureMarks:
    """How a mark of a picture becomes the places of its features, and the tokens around them."""

    image: str
    """The token in whose places features stand, as the vocabulary spells it."""
    marks: tuple[str, ...] = ("<image>",)
    """What people and templates write where a picture is."""
    before: str = ""
    """In front of a picture's places."""
    behind: str = ""
    """Behind them."""
    tags: TileTags | None = None
    """Between the places of tiles; None: nothing."""

    def number(self, text: str) -> int:
        """How many pictures a text says there are."""
        return sum(is_mark for _, is_mark in self.parts(text))

    def written(self, text: str, places: Sequence[Sequence[int]]) -> str:
        """The text with its pictures' places in the marks' place.

        Args:
            text: With marks.
            places: Of each picture, in the order of the text, how many its parts take (`Sees.places`).

        Raises:
            InputError: there are not as many marks as pictures.
        """
        if self.number(text) != len(places):
            raise InputError(
                f"the prompt has {self.number(text)} marks {self.marks[0]} for {len(places)} pictures; it "
                "needs one for each, or none, where they stand in front"
            )
        left = iter(places)
        return "".join(self.of(next(left)) if is_mark else part for part, is_mark in self.parts(text))

    def of(self, places: Sequence[int]) -> str:
        """What stands for one picture."""
        return "".join(text + self.image * number for text, number in self.pieces(places))

    def pieces(self, places: Sequence[int]) -> list[tuple[str, int]]:
        """What stands for one picture: texts, and how many places of features are behind each."""
        tags = [""] * len(places) if self.tags is None else self.tags.of(len(places))
        tags[0] = self.before + tags[0]
        return [*zip(tags, places, strict=True), (self.behind, 0)]

    def parts(self, text: str) -> Iterator[tuple[str, bool]]:
        """Pieces of text, which may be empty, and marks between them, which are true."""
        while True:
            found = [(text.find(mark), mark) for mark in dict.fromkeys((self.image, *self.marks))]
            found = [(at, -len(mark), mark) for at, mark in found if mark and at >= 0]
            if not found:
                yield text, False
                return
            at, _, mark = min(found)
            yield text[:at], False
            yield mark, True
            text = text[at + len(mark) :]
