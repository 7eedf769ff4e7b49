"""What transformers' encoders take and return."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mjx.models.bert.config import BertConfig
from mjx.models.bert.model import Bert
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.interop.interface import Interface, cross_entropy
from mjx.models.interop.token_interface import TOKENS


def _outputs(model: Bert, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """`logits` are of classes, else of tokens: `prediction_logits` where there is a head of pairs."""
    config = model.config
    inputs = Inputs(
        arrays["tokens"], arrays.get("positions"), arrays.get("segment_ids"), arrays.get("token_types")
    )
    hidden = model.hidden_states(inputs)
    found = {"last_hidden_state": hidden}
    if config.classes is not None:
        features = model.row_features(hidden, inputs.segment_ids)
        pooled = {"pooler_output": features} if config.pooler else {}
        return {**found, **pooled, "logits": model.class_logits(features)}
    if config.pooler:
        found["pooler_output"] = pooled = model.pooled(hidden, dict(arrays))
        if config.sentence_head:
            found["seq_relationship_logits"] = model.sentence_logits(pooled)
    if config.head_transform is not None:
        found["prediction_logits" if config.sentence_head else "logits"] = model.logits(hidden)
    return found


def _loss(outputs: Mapping[str, Array], labels: Mapping[str, Array]) -> Float[Array, ""] | None:
    if "seq_relationship_logits" in outputs:  # it has one where both labels are there
        if len(labels) < 2:
            return None
        hidden = cross_entropy(outputs["prediction_logits"], labels["labels"])
        return hidden + cross_entropy(outputs["seq_relationship_logits"], labels["next_sentence_label"])
    if "labels" not in labels or "logits" not in outputs:
        return None
    if outputs["logits"].shape[1:] == (1,):
        return jnp.mean((outputs["logits"][:, 0] - labels["labels"].reshape(-1)) ** 2)
    return cross_entropy(outputs["logits"], labels["labels"])


def _completed(config: BertConfig, settings: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """RoBERTa counts positions without the padding in front."""
    if not config.first_position or "attention_mask" not in given or "position_ids" in given:
        return given
    real = np.asarray(given["attention_mask"]) > 0
    return {**given, "position_ids": np.maximum(np.cumsum(real, axis=1) - 1, 0)}


INTERFACE = Interface(
    inputs={**TOKENS, "token_type_ids": "token_types"},
    labels=("labels", "next_sentence_label"),
    outputs=_outputs,
    loss=_loss,
    completed=_completed,
)
