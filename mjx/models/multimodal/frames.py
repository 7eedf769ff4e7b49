"""Pictures and videos of any size in rows of text, and positions of both: on the host, with NumPy."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mjx.errors import InputError
from mjx.models.common.pictures import GRID, Picture, patches_of
from mjx.models.multimodal.config import MultimodalConfig
from mjx.models.multimodal.rows import reading_order

GRIDS = (
    *("image_grid_thw", "video_grid_thw", "pixel_values_videos", "second_per_grid_ts", "mm_token_type_ids"),
)
"""What transformers is told of frames besides `pixel_values`."""


class Frames(NamedTuple):
    """Patches of a picture, or of a video."""

    grid: tuple[int, int, int]
    """Patches in time, rows and columns."""
    patches: Float[np.ndarray, "patches pixels"]
    """Frame by frame, in `reading_order`."""
    pace: float
    """How far apart patches that follow in time are in the text."""


class Laid(NamedTuple):
    """A row of text with the frames in it."""

    frames: list[Frames]
    places: Int[np.ndarray, " made"]
    positions: Int[np.ndarray, "sequence 3"]


def frames_of(config: MultimodalConfig, picture: Picture) -> Frames:
    """A picture that is seen as it is, a frame that stands still.

    Raises:
        InputError: its sides are no multiples of what becomes one token.
    """
    vision, side = config.vision, math.isqrt(config.merged)
    rows, columns = (size // vision.patch_size for size in picture.shape[1:])
    if (
        rows % side
        or columns % side
        or (rows * vision.patch_size, columns * vision.patch_size) != (picture.shape[1:])
    ):
        raise InputError(
            f"a picture of {picture.shape[1]} × {picture.shape[2]} (data.image.size) is no multiple of "
            f"{side * vision.patch_size}, the pixels of which become one token"
        )
    patches = patches_of(picture[None], vision.patch_size, getattr(vision, "frames", 1))[0]
    return Frames((1, rows, columns), patches[reading_order(rows, columns, config.merged)], 1.0)


def with_frames(config: MultimodalConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` by transformers' names, with the arrays of the encoder and positions in place of `GRIDS`.

    Raises:
        InputError: the tokens in a row are not those of the pictures and videos that there are.
    """
    tokens = np.asarray(given["input_ids"])
    mask = np.asarray(given.get("attention_mask", np.ones_like(tokens))) > 0
    pictures = _frames(config, given, "image_grid_thw", "pixel_values")
    videos = _frames(config, given, "video_grid_thw", "pixel_values_videos")
    laid = [laid_row(config, row, real, pictures, videos) for row, real in zip(tokens, mask, strict=True)]
    for name, left in (("image_grid_thw", pictures), ("video_grid_thw", videos)):
        if number := len(list(left)):
            raise InputError(f"{name} has {number} more than input_ids has places for")
    rest = {name: value for name, value in given.items() if name not in (*GRIDS, "pixel_values")}
    if config.axes > 1:
        rest.setdefault("position_ids", np.stack([row.positions for row in laid]))
    return rest | frame_arrays(config, laid, tokens.shape[1])


def laid_row(
    config: MultimodalConfig,
    tokens: Int[np.ndarray, " sequence"],
    real: np.ndarray,
    pictures: Iterator[Frames],
    videos: Iterator[Frames],
) -> Laid:
    """The next of the pictures and videos at their tokens. Text goes on by one along all axes; frames begin
    where it is, a patch further in time, height or width for each that becomes one token; and the text behind
    goes on after the highest or widest (Wang et al. 2024, section 2.1).

    Raises:
        InputError: there are fewer, or they do not fill the places of tokens that follow each other.
    """
    at = np.flatnonzero(real)
    row, side = tokens[at], math.isqrt(config.merged)
    positions, places, found = np.zeros((len(tokens), 3), np.int32), [], []
    here = place = 0
    while here < len(row):
        token = int(row[here])
        if token not in (config.image_token, config.video_token):
            positions[at[here]] = place
            here, place = here + 1, place + 1
            continue
        name = "image_grid_thw" if token == config.image_token else "video_grid_thw"
        frames = next(pictures if token == config.image_token else videos, None)
        if frames is None:
            raise InputError(f"input_ids has more tokens {token} than {name} has patches for")
        time, rows, columns = frames.grid
        made = time * rows * columns // config.merged
        if (row[here : here + made] != token).any() or here + made > len(row):
            raise InputError(
                f"{name} has {list(frames.grid)}, which makes {made} features, but input_ids has fewer "
                f"tokens {token} in one place"
            )
        steps = np.indices((time, rows // side, columns // side)).reshape(3, -1).T
        steps = np.concatenate([np.floor(steps[:, :1] * frames.pace).astype(int), steps[:, 1:]], axis=1)
        positions[at[here : here + made]] = place + steps
        places.append(at[here : here + made])
        found.append(frames)
        here, place = here + made, place + max(rows, columns) // side
    return Laid(found, np.concatenate([*places, np.zeros(0, int)]).astype(np.int32), positions)


def frame_arrays(
    config: MultimodalConfig, rows: list[Laid], sequence: int, width: int | None = None
) -> dict[str, np.ndarray]:
    """The arrays that the encoder reads: patches of a window one behind the other, each frame by itself.

    Args:
        config: Of the model.
        rows: Of the text.
        sequence: Tokens of each.
        width: Patches of a row of the encoder; None: as many as the fullest needs.

    Raises:
        InputError: those of a row do not fit.
    """
    needed = max([sum(len(frames.patches) for frames in row.frames) for row in rows] + [config.merged])
    width = needed if width is None else width
    if needed > width:
        raise InputError(f"the pictures of a row have {needed} patches, which are more than {width}")
    shape = (len(rows), width)
    arrays = {
        "patches": np.zeros((*shape, config.vision.patch_features), np.float32),
        "grid": np.zeros((*shape, GRID), np.int32),
        "patch_segment_ids": np.zeros(shape, np.int32),
        "image_at": np.full((shape[0], width // config.merged), sequence, np.int32),
    }
    for number, row in enumerate(rows):
        start, segment = 0, 0
        for frames in row.frames:
            time, height, columns = frames.grid
            size = height * columns
            order, blocks = _window_order(config, height, columns)
            read = reading_order(height, columns, config.merged)[order]
            grid = np.stack([read // columns, read % columns], axis=1)
            for frame in range(time):
                here = slice(start, start + size)
                arrays["patches"][number, here] = frames.patches[frame * size : (frame + 1) * size][order]
                arrays["grid"][number, here, :2] = grid
                arrays["grid"][number, here, 2:] = height, columns
                segment += 1
                arrays["patch_segment_ids"][number, here] = segment
                first = start // config.merged
                made = size // config.merged
                arrays["image_at"][number, first : first + made] = row.places[first : first + made][blocks]
                start += size
    return arrays


def _window_order(config: MultimodalConfig, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Which patch of those in reading order comes when, so that a window's follow each other; and which of
    what becomes one token."""
    side = math.isqrt(config.merged)
    blocks = np.arange(rows * columns // config.merged)
    window = getattr(config.vision, "window", None)
    if window is not None:
        across = columns // side
        down, right = (part * side // window for part in (blocks // across, blocks % across))
        blocks = np.lexsort((blocks, right, down))
    return (blocks[:, None] * config.merged + np.arange(config.merged)).ravel(), blocks


def _frames(config: MultimodalConfig, given: Mapping[str, Any], grids: str, pixels: str) -> Iterator[Frames]:
    if grids not in given:
        return iter(())
    if pixels not in given:
        raise InputError(f"{grids} is given, but {pixels}, which it is of, is not")
    sizes: list[tuple[int, int, int]] = [(int(t), int(h), int(w)) for t, h, w in np.asarray(given[grids])]
    patches = np.asarray(given[pixels], np.float32)
    ends = list(itertools.accumulate((math.prod(size) for size in sizes), initial=0))
    if patches.shape != (ends[-1], config.vision.patch_features):
        raise InputError(
            f"{pixels} has the shape {list(patches.shape)}; {grids} and the model's patches make "
            f"{[ends[-1], config.vision.patch_features]}"
        )
    paces = [1.0] * len(sizes)
    if grids == "video_grid_thw" and config.frame_pace is not None:
        seconds = np.ravel(np.asarray(given.get("second_per_grid_ts", paces)))
        paces = [config.frame_pace * float(each) for each in seconds]
    parts = [patches[a:b] for a, b in itertools.pairwise(ends)]
    return (Frames(*each) for each in zip(sizes, parts, paces, strict=True))
