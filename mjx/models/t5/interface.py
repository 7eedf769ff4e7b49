"""What transformers' encoder-decoders take and return."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from mjx.errors import InputError
from mjx.models.common.context import Memory
from mjx.models.common.split import in_row_order, token_order
from mjx.models.common.token_model.encoder_decoder import EncoderDecoder
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.interop.interface import IGNORED, Interface, cross_entropy
from mjx.models.interop.token_interface import TOKENS
from mjx.models.t5.config import T5Config


def _outputs(model: EncoderDecoder, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Without tokens for the decoder, the encoder's states alone."""
    segments = arrays.get("segment_ids")
    if "states" in arrays:
        memory = Memory(arrays["states"].astype(model.config.compute_dtype), segments)
        found = {"encoder_last_hidden_state": arrays["states"]}
    else:
        memory, _, _ = model.encode(Inputs(arrays["tokens"], arrays.get("positions"), segments))
        order = token_order(memory.states.shape[1])
        found = {"encoder_last_hidden_state": in_row_order(order, memory.states)}
    if "decoder_tokens" not in arrays:
        return found
    inputs = Inputs(
        arrays["decoder_tokens"],
        arrays.get("decoder_positions"),
        arrays.get("decoder_segment_ids"),
        memory=memory,
    )
    hidden = model.hidden_states(inputs)
    return {"logits": model.logits(hidden), "last_hidden_state": hidden, **found}


def _loss(outputs: Mapping[str, Array], labels: Mapping[str, Array]) -> Float[Array, ""] | None:
    return cross_entropy(outputs["logits"], labels["labels"])


def _completed(config: T5Config, settings: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The decoder reads the labels behind its start token, where nothing else is given; BART's, the encoder's
    tokens if there are no labels either."""
    given = dict(given)
    if "encoder_outputs" in given:
        given["encoder_outputs"] = _states(given["encoder_outputs"])
    read = given.get("labels")
    if read is None and settings.get("model_type") == "bart":
        read = given.get("input_ids")
    if read is not None and "decoder_input_ids" not in given:
        given["decoder_input_ids"] = _shifted(np.asarray(read), settings)
    return given


def _states(given: Any) -> np.ndarray:
    """Of the encoder's outputs, as transformers hands them on or by themselves."""
    if isinstance(given, Mapping):
        given = given["last_hidden_state"]
    states = np.asarray(given[0] if isinstance(given, tuple | list) else given)
    if states.ndim != 3:
        raise InputError(
            f"encoder_outputs are of the shape {states.shape}, which should be batch × tokens × features"
        )
    return states


def _shifted(labels: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    start, pad = (settings.get(name) for name in ("decoder_start_token_id", "pad_token_id"))
    if start is None or pad is None:
        raise InputError(
            "the decoder's tokens follow from labels where config.json has decoder_start_token_id and "
            "pad_token_id; give decoder_input_ids"
        )
    shifted = np.roll(labels, 1, axis=1)
    shifted[:, 0] = start
    return np.where(shifted == IGNORED, pad, shifted)


INTERFACE = Interface(
    inputs={
        **{name: ours for name, ours in TOKENS.items() if name != "position_ids"},
        "encoder_outputs": "states",
        "decoder_input_ids": "decoder_tokens",
        "decoder_attention_mask": "decoder_segment_ids",
    },
    needed=("input_ids", "encoder_outputs"),
    labels=("labels",),
    outputs=_outputs,
    loss=_loss,
    completed=_completed,
)
