"""Which samples of pictures and texts have room in a row, and which share one."""

import dataclasses
import logging

import numpy as np
from jaxtyping import Int64

from mjx.data.gpt.packing import best_fit
from mjx.data.image_text.tokens import MARK_ID, TextTokens


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Samples that have room."""

    rows: Int64[np.ndarray, "samples"]
    """Which samples of the source they are."""
    lengths: Int64[np.ndarray, "samples"]
    """Tokens of each in a row, with the places of its pictures; of several texts the longest's."""
    pictures: Int64[np.ndarray, "samples"]
    """Of each."""
    length: int
    """Tokens of a row."""
    room: int
    """Pictures of a row."""

    def packed(
        self, seed: int, packing: bool
    ) -> tuple[Int64[np.ndarray, "samples"], Int64[np.ndarray, "rows+1"]]:
        """The samples, those of a row one after another, and the first of each row; then their number.

        Of a sample counts what fills more of its row, tokens or pictures; without packing each is a row.
        """
        if not packing:
            return np.arange(len(self.rows)), np.arange(len(self.rows) + 1)
        capacity = self.length * self.room
        sizes = np.maximum(self.lengths * self.room, self.pictures * self.length)
        # In tokens, rounded up: rows need not be known finer than that.
        sizes = -(-sizes // self.room)
        row = best_fit(sizes, capacity // self.room, np.random.RandomState(seed))
        return np.argsort(row, kind="stable"), np.append(0, np.cumsum(np.bincount(row)))


def fitted(
    texts: TextTokens,
    rows: Int64[np.ndarray, "rows"],
    counts: Int64[np.ndarray, "samples"],
    *,
    path: str,
    length: int,
    places: int,
    pictures: int,
) -> Fitted:
    """Leaves out, with a warning, samples that have no room.

    Args:
        texts: Of the source.
        rows: The samples of the split.
        counts: How many pictures each sample of the source has.
        path: Of the source, for messages.
        length: Tokens of a row; of a sample's last token only the label is read.
        places: Tokens that a picture takes.
        pictures: That have room in a row.
    """
    found, lengths, left_out, cut = [], [], [], 0
    for row in rows.tolist():
        number, longest = int(counts[row]), 0
        fits = number <= pictures
        for text in range(*texts.texts[row : row + 2].tolist()):
            tokens, learned = texts.text(text)
            whole = len(tokens) - 1 + number * (places - 1)
            longest = max(longest, whole)
            if whole > length:
                kept = length + 1 - number * (places - 1)
                marks = int((tokens[: max(kept - 1, 0)] == MARK_ID).sum())
                fits &= marks == number and bool(learned[1:kept].any())
        if not fits:
            left_out.append(row)
            continue
        cut += longest > length
        found.append(row)
        lengths.append(min(longest, length))
    log = logging.getLogger("mjx")
    if left_out:
        log.warning(
            "%s: left out %d of %d samples (sample %d, …), whose pictures or answers have no room in "
            "data.sequence_length = %d tokens and data.pictures = %d",
            *(path, len(left_out), len(rows), left_out[0] + 1, length, pictures),
        )
    if cut:
        log.warning(
            "%s: %d of %d texts have more than data.sequence_length = %d tokens, and are cut",
            *(path, cut, len(rows), length),
        )
    some = np.array(found, np.int64)
    return Fitted(some, np.array(lengths, np.int64), counts[some], length, pictures)
