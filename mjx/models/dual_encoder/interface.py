"""What transformers' models of two towers take and return."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from mjx.errors import InputError
from mjx.models.dual_encoder.config import DualEncoderConfig
from mjx.models.dual_encoder.model import DualEncoder
from mjx.models.interop.interface import Interface


def _outputs(model: DualEncoder, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The vectors of pictures and texts, and the logits of all pairs, of what is there."""
    found = {}
    if "images" in arrays:
        found["image_embeds"] = model.picture_vectors(arrays["images"])
    if "tokens" in arrays:
        found["text_embeds"] = model.text_vectors(arrays["tokens"], arrays.get("segment_ids"))
    if len(found) == 2:
        found["logits_per_image"] = model.logits(found["image_embeds"], found["text_embeds"])
        found["logits_per_text"] = found["logits_per_image"].T
    return found


def _loss(outputs: Mapping[str, Array], labels: Mapping[str, Array]) -> Float[Array, ""] | None:
    """`return_loss`: of rows that belong together."""
    return None


def completed(
    config: DualEncoderConfig, settings: Mapping[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """Raise `InputError` for a mask that the model would see otherwise."""
    mask = given.get("attention_mask")
    if config.pad_token is None or mask is None:
        return given
    if not np.all(np.asarray(mask)):
        raise InputError(
            "attention_mask hides tokens, but the model reads what stands behind a text too; fill rows up to "
            f"their end with {config.pad_token}, and leave attention_mask out"
        )
    return {name: value for name, value in given.items() if name != "attention_mask"}


INTERFACE = Interface(
    inputs={"input_ids": "tokens", "attention_mask": "segment_ids", "pixel_values": "images"},
    needed=("input_ids", "pixel_values"),
    by_tokens=False,
    labels=(),
    outputs=_outputs,
    loss=_loss,
    completed=completed,
)
