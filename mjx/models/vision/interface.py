"""What transformers' vision transformers take and return."""

from collections.abc import Mapping

from jaxtyping import Array, Float

from mjx.models.interop.interface import Interface, cross_entropy
from mjx.models.vision.model import VisionTransformer


def _outputs(model: VisionTransformer, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The tokens and the pooled picture, and `logits` where there are classes."""
    masked = arrays.get("masked")
    inputs = model.pictures(arrays["images"], None if masked is None else masked > 0)
    hidden = model(inputs)
    found = {"last_hidden_state": hidden, "pooler_output": model.pooled(hidden, inputs)}
    if model.classifier is not None:
        found["logits"] = model.class_logits(found["pooler_output"])
    return found


def _loss(outputs: Mapping[str, Array], labels: Mapping[str, Array]) -> Float[Array, ""] | None:
    return cross_entropy(outputs["logits"], labels["labels"]) if "logits" in outputs else None


INTERFACE = Interface(
    inputs={"pixel_values": "images", "bool_masked_pos": "masked"},
    needed=("pixel_values",),
    by_tokens=False,
    labels=("labels",),
    outputs=_outputs,
    loss=_loss,
)
