"""Train, validation and test parts of a dataset, as ranges of its documents."""

import re
from typing import Literal

import numpy as np

from mjx.errors import InputError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
WITHOUT_VALIDATION = "training.evaluation_rows=0 trains without validation"


class EmptyPartError(InputError):
    """A part of a source has nothing to predict; of a blend it can be left out."""


def parse_split(split: str) -> tuple[float, ...]:
    """`"969,30,1"` → the shares of train, valid and test, which sum to one. What is left out is 0."""
    parts = [part.strip() for part in split.split(",")]
    number = re.compile(r"\d+\.?\d*|\.\d+")
    if len(parts) > len(SPLITS) or not all(number.fullmatch(part) for part in parts):
        raise InputError(
            f'split = "{split}" is not up to three numbers with commas, the shares of train, valid and test; '
            'for instance "969,30,1".'
        )
    shares = np.array([float(part) for part in parts] + [0.0] * (len(SPLITS) - len(parts)))
    if not 0 < shares.sum() < float("inf"):
        raise InputError(
            f'split = "{split}" adds up to {shares.sum():g}; for instance "969,30,1" would be right.'
        )
    return tuple((shares / shares.sum()).tolist())


def split_range(split: str, name: Split, num_documents: int) -> range:
    """The documents of one part; the borders are rounded as Megatron rounds them.

    Raises:
        EmptyPartError: the part has no document. (Megatron loops for ever on it.)
    """
    shares = parse_split(split)
    part = SPLITS.index(name)
    borders = [0.0]
    for share in shares:
        borders.append(borders[-1] + share)
    begin, end = (round(border * float(num_documents)) for border in borders[part : part + 2])
    if begin >= end:
        raise EmptyPartError(f'data.split = "{split}" leaves the {name} part no document of {num_documents}.')
    return range(begin, end)
