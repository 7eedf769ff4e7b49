"""What transformers' models that see take and return."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mjx.errors import InputError
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.interop.interface import Interface, cross_entropy
from mjx.models.multimodal.config import SEEN, MultimodalConfig
from mjx.models.multimodal.frames import GRIDS, with_frames
from mjx.models.multimodal.model import Multimodal
from mjx.models.multimodal.rows import features_of, seen_arrays

_PLACES = "image_places"
"""Which of a row's embeddings take a place, where all rows have as many."""


def _outputs(model: Multimodal, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """`logits`, and what the pictures have become: `image_hidden_states`, one row after the other."""
    inputs = Inputs(arrays["tokens"], arrays.get("positions"), arrays.get("segment_ids"))
    seen = model.see({name: arrays[name] for name in (*SEEN, "image_at") if name in arrays})
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
    tokens, images = np.asarray(given["input_ids"]), np.asarray(given["pixel_values"], np.float32)
    made = features_of(config, images[0]) if len(images) else 1
    places = (tokens == config.image_token).sum(axis=1)
    if (places % made).any() or places.sum() != made * len(images):
        raise InputError(
            f"input_ids has {', '.join(map(str, places))} tokens {config.image_token} in its rows, and "
            f"pixel_values {len(images)} pictures, each of which makes {made}"
        )
    ends = np.cumsum(places // made)
    rows = [list(images[end - number : end]) for end, number in zip(ends, places // made, strict=True)]
    arrays = seen_arrays(config, tokens, rows)
    kept = [np.flatnonzero(row < tokens.shape[1]) for row in arrays["image_at"]]
    if len(set(map(len, kept))) == 1:
        arrays[_PLACES] = np.stack(kept)
    return {**{name: value for name, value in given.items() if name != "pixel_values"}, **arrays}


INTERFACE = Interface(
    inputs={
        "input_ids": "tokens",
        "attention_mask": "segment_ids",
        "position_ids": "positions",
        "pixel_values": "pixel_values",
        **{name: name for name in GRIDS},
        **{name: name for name in (*SEEN, "image_at", _PLACES)},
    },
    labels=("labels",),
    outputs=_outputs,
    loss=_loss,
    by_tokens=False,
    completed=completed,
)
