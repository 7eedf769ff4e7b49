"""What a batch is made of: said by the data, laid out by training, checked by the model."""

import dataclasses
from collections.abc import Mapping, Sequence

from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchArray:
    """One array of a batch."""

    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]
    """Logical; the first is `batch`."""


BatchArrays = Mapping[str, BatchArray]
"""The arrays of a batch, by name."""


def token_batch(rows: int, sequence: int, extras: Sequence[str] = ()) -> dict[str, BatchArray]:
    """The arrays of a batch of token rows: tokens, labels, loss_mask, and of those that not every batch has
    (`positions`, `segment_ids`) the `extras`."""
    dtypes = {"tokens": "int32", "labels": "int32", "loss_mask": "float32"} | dict.fromkeys(extras, "int32")
    return {
        name: BatchArray(shape=(rows, sequence), dtype=dtype, axes=("batch", "sequence"))
        for name, dtype in dtypes.items()
    }


def coded_batch(
    rows: int, encoder: int, decoder: int, extras: Sequence[str] = (), decoder_extras: Sequence[str] = ()
) -> dict[str, BatchArray]:
    """The arrays of a batch for an encoder and a decoder: `tokens` and `segment_ids` of the one,
    `decoder_tokens`, `labels`, `loss_mask` and `decoder_segment_ids` of the other (segment 0 is padding), and
    of those that not every batch has (positions) the extras of each."""
    names = dict.fromkeys(("tokens", "segment_ids", *extras), encoder)
    names |= dict.fromkeys(
        ("decoder_tokens", "labels", "loss_mask", "decoder_segment_ids", *decoder_extras), decoder
    )
    return {
        name: BatchArray(
            shape=(rows, length),
            dtype="float32" if name == "loss_mask" else "int32",
            axes=("batch", "sequence"),
        )
        for name, length in names.items()
    }


def size_of(arrays: BatchArrays) -> tuple[int, int]:
    """The rows of a batch, and the positions of the longest sequence in a row (1 where there is none)."""
    rows, lengths = set(), [1]
    for array in arrays.values():
        for axis, size in zip(array.axes, array.shape, strict=True):
            if axis == "batch":
                rows.add(size)
            elif axis == "sequence":
                lengths.append(size)
    (one,) = rows
    return one, max(lengths)


def cut_batch(arrays: BatchArrays, parts: int) -> dict[str, BatchArray]:
    """The arrays of one of `parts` microbatches."""
    return {
        name: dataclasses.replace(array, shape=(array.shape[0] // parts, *array.shape[1:]))
        for name, array in arrays.items()
    }


def check_arrays(arrays: BatchArrays, needed: Mapping[str, str], optional: Mapping[str, str]) -> None:
    """Compare a batch with what a model takes: names → dtypes.

    Raises:
        InputError: an array is missing, unknown or of another dtype.
    """
    known = {**needed, **optional}
    for name in needed:
        if name not in arrays:
            raise InputError(
                f"the batches have no array '{name}', which the model needs (they have {', '.join(arrays)}); "
                "data.kind is another model's"
            )
    for name, array in arrays.items():
        if name not in known:
            raise InputError(
                f"the batches have an array '{name}', which the model does not take (it takes "
                f"{', '.join(known)}); data.kind is another model's"
            )
        if array.dtype != known[name]:
            raise InputError(f"batch array '{name}' has dtype {array.dtype}; the model takes {known[name]}")
