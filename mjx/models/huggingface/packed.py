"""Tensors that a checkpoint holds packed, read in parts as if they were not.

MXFP4 (Open Compute Project, Microscaling Formats 1.0, section 5): numbers of 4 bits (E2M1), 32 of which
share a scale, a power of two (E8M0). In gpt-oss's checkpoints a tensor NAME of the shape [experts, 32 ·
blocks, columns] is two:

- `NAME_blocks` [experts, columns, blocks, 16], each byte two numbers, the first in its lower half;
- `NAME_scales` [experts, columns, blocks].
"""

import functools
from collections.abc import Collection, Mapping

import ml_dtypes
import numpy as np
from jaxtyping import Float

from mjx.errors import InputError
from mjx.models.interop.tensor_layout import Index, Tensor

PARTS = ("_blocks", "_scales")
"""What the names of the two end with."""
_BLOCK = 32
"""Numbers that share a scale."""
_BYTES = _BLOCK // 2
_STRIP = 64
"""Columns at a time, so that they are still in the CPU's cache when they are turned."""


def unpacked(tensors: Mapping[str, Tensor], expected: Collection[str]) -> Mapping[str, Tensor]:
    """With one tensor in the place of two, where that is what is expected.

    Raises:
        InputError: two are not the parts of one.
    """
    packed = {
        name: (f"{name}{PARTS[0]}", f"{name}{PARTS[1]}")
        for name in expected
        if name not in tensors and all(f"{name}{part}" in tensors for part in PARTS)
    }
    if not packed:
        return tensors
    parts = {part for both in packed.values() for part in both}
    whole = {name: tensor for name, tensor in tensors.items() if name not in parts}
    return whole | {
        name: MXFP4(tensors[blocks], tensors[scales], name) for name, (blocks, scales) in packed.items()
    }


class MXFP4:
    """A tensor of [experts, features, columns], in bfloat16, which holds all of its numbers exactly.

    Numbers of a scale that is no number (255) are NaN, and those beyond bfloat16's infinite.
    """

    dtype = np.dtype(ml_dtypes.bfloat16)

    def __init__(self, blocks: Tensor, scales: Tensor, name: str):
        fits = len(blocks.shape) == 4 and blocks.shape[3:] == (_BYTES,) and blocks.shape[:3] == scales.shape
        if not fits or {blocks.dtype, scales.dtype} != {np.dtype(np.uint8)}:
            raise InputError(
                f"tensor {name} cannot be unpacked: {name}_blocks holds {blocks.dtype} of the shape "
                f"{list(blocks.shape)}, and {name}_scales {scales.dtype} of the shape {list(scales.shape)}; "
                f"both should hold uint8, of the shapes [experts, columns, blocks, {_BYTES}] and [experts, "
                "columns, blocks]"
            )
        self._blocks, self._scales = blocks, scales
        experts, columns, count = scales.shape
        self.shape = (experts, count * _BLOCK, columns)

    def read(self, index: Index = ()) -> Float[np.ndarray, "experts features columns"]:
        """One expert after the other: beside the part there are never the numbers of two."""
        whole = (slice(None),) * (3 - len(index))
        (first, last), (start, stop), (left, right) = (
            part.indices(size)[:2] for part, size in zip((*index, *whole), self.shape, strict=True)
        )
        part = np.empty((max(last - first, 0), max(stop - start, 0), max(right - left, 0)), self.dtype)
        if not part.size:
            return part
        begin = start // _BLOCK
        box = (slice(left, right), slice(begin, -(-stop // _BLOCK)))
        inner = slice(start - begin * _BLOCK, stop - begin * _BLOCK)
        for expert, numbers in zip(range(first, last), part, strict=True):
            one = (slice(expert, expert + 1), *box)
            scales, blocks = self._scales.read(one)[0], self._blocks.read(one)[0]
            for at in range(0, right - left, _STRIP):
                strip = slice(at, at + _STRIP)
                pairs = _pairs()[scales[strip].astype(np.uint16)[..., None] << 8 | blocks[strip]]
                rows = pairs.view(self.dtype).reshape(len(pairs), -1)
                numbers[:, strip] = rows[:, inner].T
        return part


@functools.cache
def _pairs() -> np.ndarray:
    """Of every scale and every byte, at 256 · scale + byte: the bits of both numbers."""
    magnitudes = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    numbers = np.concatenate([magnitudes, -magnitudes])
    byte = np.arange(256)
    both = np.stack([numbers[byte & 15], numbers[byte >> 4]], axis=-1)
    scales = np.append(2.0 ** (np.arange(255.0) - 127), np.nan)
    with np.errstate(over="ignore"):
        table = (scales[:, None, None] * both).astype(MXFP4.dtype)
    return table.reshape(-1).view(np.uint32)
