"""What transformers' vision transformers take and return."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float

from mjx.models.interop.interface import Interface, cross_entropy
from mjx.models.vision.config import VisionConfig
from mjx.models.vision.grid import ImageInputs, entering, grid_of
from mjx.models.vision.model import VisionTransformer


def _outputs(model: VisionTransformer, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """`logits` where there are classes, else the tokens and the pooled picture."""
    inputs = ImageInputs(**{name: arrays.get(name) for name in ("patches", "grid", "segment_ids", "masked")})
    hidden = model(inputs)
    found = {"last_hidden_state": hidden, "pooler_output": model.pooled(hidden, inputs)}
    if model.classifier is not None:
        found["logits"] = model.class_logits(found["pooler_output"])
    return found


def _loss(outputs: Mapping[str, Array], labels: Mapping[str, Array]) -> Float[Array, ""] | None:
    return cross_entropy(outputs["logits"], labels["labels"]) if "logits" in outputs else None


def _completed(config: VisionConfig, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pictures as patches, with their places where they are of another size than the model's."""
    images = arrays.pop("images")
    patch, learned = config.patch_size, config.learned_tokens
    arrays["patches"] = entering(images, patch, learned)
    grid = images.shape[2] // patch, images.shape[3] // patch
    if grid != config.grid:
        arrays["grid"] = np.broadcast_to(grid_of(*grid, learned), (*arrays["patches"].shape[:2], 4))
    if "masked" in arrays:
        arrays["masked"] = np.pad(arrays["masked"].astype(bool), ((0, 0), (learned, 0)))
    return arrays


INTERFACE = Interface(
    inputs={"pixel_values": "images", "bool_masked_pos": "masked"},
    labels=("labels",),
    outputs=_outputs,
    loss=_loss,
    completed=_completed,
)
