"""Pictures as rows of patches, and where in its picture each of them is."""

from typing import Any, Literal, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mjx.models.common.split import divided_length

ArrayT = TypeVar("ArrayT", np.ndarray, Array)

GRID = 4
"""What is said of a token: the row and the column of its patch, and how many of each its picture has. A row
below 0 is that of a learned token: -1 of the first, -2 of the second, …"""


class ImageInputs(NamedTuple):
    """What enters a vision transformer: patches, with something in the places of learned tokens."""

    patches: Float[Array, "batch sequence pixels"]
    """Each flattened, channel by channel."""
    grid: Int[Array, "#batch sequence grid"] | None = None
    """None: learned tokens, then a picture of the model's own size, row by row."""
    segment_ids: Int[Array, "batch sequence"] | None = None
    """Pictures in a row of tokens, from 1, which do not see each other; 0 is padding. None: each row is one
    picture."""
    masked: Bool[Array, "batch sequence"] | None = None
    """Patches that are hidden behind the mask token; None: none."""
    training: bool = False
    """Whether layers do what only training does."""


def patches_of(
    images: Float[ArrayT, "batch channels height width"], patch: int, frames: int = 1
) -> Float[ArrayT, "batch patches pixels"]:
    """Patches row by row, each channel so many times; edges that make no whole patch are cut off, as a
    convolution does."""
    batch, channels, height, width = images.shape
    rows, columns = height // patch, width // patch
    cut = images[:, :, : rows * patch, : columns * patch]
    parts = cut.reshape(batch, channels, rows, patch, columns, patch)
    flat = parts.transpose(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels, patch * patch)
    joined: Any = flat
    if frames > 1:
        joined = (np if isinstance(images, np.ndarray) else jnp).concatenate([flat] * frames, axis=-1)
    return joined.reshape(batch, rows * columns, -1)


def whole_grid(rows: int, columns: int, learned: int) -> Int[np.ndarray, "1 sequence grid"]:
    """Of rows that are one picture each: so many learned tokens, then its patches."""
    places = np.indices((rows, columns)).reshape(2, -1).T
    front = np.stack([-1 - np.arange(learned), np.zeros(learned, int)], axis=1)
    places = np.concatenate([front, places])
    sizes = np.broadcast_to((rows, columns), places.shape)
    return np.concatenate([places, sizes], axis=1)[None].astype(np.int32)


def pictures(
    images: Float[Array, "batch channels height width"],
    patch: int,
    learned: int,
    masked: Bool[Array, "batch patches"] | None = None,
    frames: int = 1,
) -> ImageInputs:
    """Pictures of one size, each a row of its own, behind places for so many learned tokens; padded to what
    the mesh in force divides."""
    grid: Any = whole_grid(images.shape[2] // patch, images.shape[3] // patch, learned)
    tokens = grid.shape[1]
    around = (learned, divided_length(tokens) - tokens)
    patches = jnp.pad(patches_of(images, patch, frames), ((0, 0), around, (0, 0)))
    hidden = None if masked is None else jnp.pad(masked, ((0, 0), around))
    if not around[1]:
        return ImageInputs(patches, grid, masked=hidden)
    # Padding is in such a picture too, so that its positions are known when it is compiled.
    behind = np.repeat([[[0, 0, *grid[0, -1, 2:]]]], around[1], axis=1).astype(np.int32)
    real = jnp.broadcast_to(jnp.arange(patches.shape[1]) < tokens, patches.shape[:2])
    places: Any = np.concatenate([grid, behind], axis=1)
    return ImageInputs(patches, places, real.astype(jnp.int32), hidden)


Resizing = Literal["bicubic", "bilinear", "bicubic-antialias", "bilinear-antialias", "bilinear-corners"]
"""How a table of positions is made larger or smaller, as torch's `interpolate` does it without
`align_corners`. antialias: by a filter that widens where there are fewer places than positions. corners: with
`align_corners`, which keeps the first position and the last."""


def resizing(
    place: Int[Array, "..."],
    size: Int[Array, "..."],
    known: int,
    method: Resizing,
    covered: Int[Array, "..."] | None = None,
) -> Float[Array, "... known"]:
    """How much of each of `known` learned positions a place among `size` is made of; ends are repeated.

    Where only the first `covered` positions are to be stretched over the places, others are of no weight.
    """
    cubic, widens = method.startswith("bicubic"), method.endswith("antialias")
    last = jnp.asarray(known if covered is None else covered) - 1
    if method == "bilinear-corners":
        step = last / jnp.maximum(size - 1, 1).astype(jnp.float32)
        at = place.astype(jnp.float32) * step
    else:
        step = (last + 1) / jnp.maximum(size, 1).astype(jnp.float32)
        at = (place.astype(jnp.float32) + 0.5) * step - 0.5
    positions = jnp.arange(known, dtype=jnp.float32)
    if widens:
        far = jnp.abs(positions - at[..., None]) / jnp.maximum(step, 1.0)[..., None]
        weights = _cubic(far, -0.5) if cubic else jnp.maximum(1.0 - far, 0.0)
        if covered is not None:
            weights = jnp.where(positions <= last[..., None], weights, 0.0)
        return weights / jnp.sum(weights, axis=-1, keepdims=True)
    at = at if cubic else jnp.maximum(at, 0.0)
    first = jnp.floor(at)
    weights = jnp.zeros((*at.shape, known), jnp.float32)
    for tap in range(-1, 3) if cubic else range(2):
        far = jnp.abs(at - first - tap)
        share = _cubic(far, -0.75) if cubic else 1.0 - far
        near = jnp.clip(first + tap, 0, last)
        weights = weights + share[..., None] * (positions == near[..., None])
    return weights


def _cubic(far: Float[Array, "..."], a: float) -> Float[Array, "..."]:
    """The kernel of cubic convolution (Keys 1981, equation 8, whose a is -0.5)."""
    near = ((a + 2) * far - (a + 3)) * far * far + 1
    beyond = a * (((far - 5) * far + 8) * far - 4)
    return jnp.where(far <= 1, near, jnp.where(far < 2, beyond, 0.0))
