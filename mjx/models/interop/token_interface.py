"""The interface of models of tokens, and of those of them that continue text."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from mjx.models.common.token_model.inputs import Inputs
from mjx.models.interop.interface import Interface, cross_entropy

TOKENS = {"input_ids": "tokens", "attention_mask": "segment_ids", "position_ids": "positions"}
"""What enters a model of tokens: their names → those of a batch's arrays."""


def _next_tokens(model: Any, arrays: Mapping[str, Array]) -> dict[str, Array]:
    inputs = Inputs(arrays["tokens"], arrays.get("positions"), arrays.get("segment_ids"))
    hidden = model.hidden_states(inputs)
    return {"logits": model.logits(hidden), "last_hidden_state": hidden}


def _next_token_loss(outputs: Mapping[str, Array], labels: Mapping[str, Array]) -> Float[Array, ""] | None:
    """Labels stand at their own place, and are told by the logits in front of it."""
    return cross_entropy(outputs["logits"][:, :-1], labels["labels"][:, 1:])


CAUSAL = Interface(inputs=TOKENS, labels=("labels",), outputs=_next_tokens, loss=_next_token_loss)
"""Of models that continue text: `logits` of their classes, `last_hidden_state` of those without a head."""
