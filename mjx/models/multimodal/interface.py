"""What transformers' models that see take and return."""

import itertools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mjx.errors import InputError
from mjx.models.common.pictures import Tiles, View
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.interop.interface import Interface, cross_entropy
from mjx.models.multimodal.config import PLACES, SEEN, MultimodalConfig
from mjx.models.multimodal.frames import GRIDS, with_frames
from mjx.models.multimodal.layout import features_of, tiles_of
from mjx.models.multimodal.model import Multimodal
from mjx.models.multimodal.rows import seen_arrays

_PLACES = "image_places"
"""Which of a row's embeddings take a place, where all rows have as many."""


def _outputs(model: Multimodal, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """`logits`, and what the pictures have become: `image_hidden_states`, one row after the other."""
    inputs = Inputs(arrays["tokens"], arrays.get("positions"), arrays.get("segment_ids"))
    seen = model.see({name: arrays[name] for name in (*SEEN, *PLACES) if name in arrays})
    if seen is not None:
        inputs = inputs._replace(embeddings=seen.embeddings, at=seen.at)
    hidden = model.language.hidden_states(inputs)
    found = {"logits": model.language.logits(hidden), "last_hidden_state": hidden}
    if seen is not None and _PLACES in arrays:
        kept = jnp.take_along_axis(seen.embeddings, arrays[_PLACES][..., None], axis=1)
        found["image_hidden_states"] = kept.reshape(-1, kept.shape[-1])
    return found


def _loss(outputs: Mapping[str, Array], labels: Mapping[str, Array]) -> Float[Array, ""] | None:
    """Labels stand at their own place, and are told by the logits in front of it."""
    return cross_entropy(outputs["logits"][:, :-1], labels["labels"][:, 1:])


def completed(config: MultimodalConfig, settings: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is seen, which stand one after the other, in the rows of text in which their places are."""
    if "image_grid_thw" in given or "video_grid_thw" in given:
        return with_frames(config, given)
    if "pixel_values" not in given:
        return given
    tokens, views = np.asarray(given["input_ids"]), _views(config, given)
    made = [features_of(config, view) for view in views]
    places = (tokens == config.image_token).sum(axis=1)
    # Where the text of each row begins and ends among all places, some of which are between pictures.
    ends, between = np.cumsum(places), np.cumsum([0, *made])
    if ends[-1] != between[-1] or not np.isin(ends, between).all():
        raise InputError(
            f"input_ids has {', '.join(map(str, places))} tokens {config.image_token} in its rows, and "
            f"pixel_values {len(views)} pictures, which make {', '.join(map(str, made))}"
        )
    cuts = [0, *np.searchsorted(between, ends)]
    arrays = seen_arrays(config, tokens, [views[a:b] for a, b in itertools.pairwise(cuts)])
    at = np.concatenate([arrays[name] for name in PLACES if name in arrays], axis=1)
    kept = [np.argsort(row, kind="stable")[:number] for row, number in zip(at, places, strict=True)]
    if len(set(map(len, kept))) == 1:
        arrays[_PLACES] = np.stack(kept)
    theirs = ("pixel_values", "image_sizes")
    return {**{name: value for name, value in given.items() if name not in theirs}, **arrays}


def _views(config: MultimodalConfig, given: Mapping[str, Any]) -> list[View]:
    """`pixel_values`, each a picture; of a model with pinpoints its tiles, and behind them padding."""
    images = np.asarray(given["pixel_values"], np.float32)
    if not config.pinpoints:
        return list(images)
    if "image_sizes" not in given:
        raise InputError("pixel_values are tiles; image_sizes should say the pictures' heights and widths")
    sizes = [(int(height), int(width)) for height, width in np.asarray(given["image_sizes"])]
    numbers = [tiles_of(config, size) for size in sizes]
    if images.ndim == 4:  # the tiles of all, without padding
        parts = np.split(images, np.cumsum(numbers)[:-1])
    else:
        parts = [tiles[:number] for tiles, number in zip(images, numbers, strict=True)]
    return [Tiles(part, size) for part, size in zip(parts, sizes, strict=True)]


INTERFACE = Interface(
    inputs={
        "input_ids": "tokens",
        "attention_mask": "segment_ids",
        "position_ids": "positions",
        "pixel_values": "pixel_values",
        "image_sizes": "image_sizes",
        **{name: name for name in GRIDS},
        **{name: name for name in (*SEEN, *PLACES, _PLACES)},
    },
    labels=("labels",),
    outputs=_outputs,
    loss=_loss,
    by_tokens=False,
    completed=completed,
)
