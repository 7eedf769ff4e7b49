"""How each library calls what goes into a model and what comes out: one row per library and family.

A family that moves in adds its rows here. `batch` makes a batch of ours of a case's inputs, whose names are
all in `inputs`; `compute` gives, under the library's names, all that our model can say of such a batch.
What a case holds beyond these names is not supported, never passed over.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mjx.inference.embedding import POOLING
from mjx.models.common.pictures.expanded import expanded
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.family import Batch, load_family
from mjx.models.multimodal.config import SEEN
from mjx.models.multimodal.frames import GRIDS
from mjx.models.multimodal.layout import features_of
from mjx.models.multimodal.rows import seen_arrays

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Family:
    """One library's names for one family."""

    inputs: tuple[str, ...]
    """What a case may hold."""
    needed: tuple[str, ...]
    """What it has to."""
    batch: Callable[[Arrays], Batch]
    compute: Callable[[Any, Batch], dict[str, Array]]
    """`compute(model, batch)`: outputs and losses by name. The gradients are those of "loss",
    or of "total" where that is there: a library may say its loss without what routers add."""
    losses: tuple[str, ...] = ("loss",)
    """Those of what is computed that are losses, each one number or one per layer."""
    unsupported: Callable[[Any], dict[str, bool]] = lambda config: {}
    """What of a config no case can be compared of: a reason, and whether it holds."""
    counted: Callable[[Arrays], np.ndarray | None] = lambda inputs: None
    """Which places of the outputs mean something; None: all."""
    prepared: Callable[[Any, Arrays], Arrays] = lambda config, inputs: inputs
    """`prepared(config, inputs)`: what a model of this config makes of a case's inputs, by their names."""


def _decoder(model, batch: Batch) -> dict[str, Array]:
    inputs = Inputs(batch["tokens"], batch.get("positions"), batch.get("segment_ids"))
    return _decoder_of(model, batch, inputs)


def _decoder_of(model, batch: Batch, inputs: Inputs) -> dict[str, Array]:
    hidden = model.hidden_states(inputs)
    logits = model.logits(hidden)
    computed = {"logits": logits, "last_hidden_state": hidden}
    if "labels" in batch:
        computed["loss"], _ = model.loss(batch, model.counts(batch))
        labels = batch["labels"][..., None]
        chosen = jnp.take_along_axis(logits, labels, axis=-1)[..., 0]
        computed["per_token_loss"] = jax.nn.logsumexp(logits, axis=-1) - chosen
    return computed


def _megatron_decoder(model, batch: Batch) -> dict[str, Array]:
    if model.config.max_positions is None:  # GPTModel looks at position_ids for its learned positions only
        batch = {name: array for name, array in batch.items() if name != "positions"}
    inputs = Inputs(batch["tokens"], batch.get("positions"), batch.get("segment_ids"))
    evaluated = model.logits(model.hidden_states(inputs))
    # A case is of a model that is being trained, whose routing is another.
    computed = _decoder_of(model, batch, inputs._replace(training=True))
    counts = model.counts(batch)
    computed["total"], report = model.loss(batch, counts)
    computed["loss"] = report.losses["loss"].total
    return {**computed, "logits_eval": evaluated, **_auxiliary(model.config, report.statistics)}


_AUXILIARY = {
    "aux_load_balancing_loss": "load_balancing_loss",
    "aux_seq_load_balancing_loss": "sequence_load_balancing_loss",
    "aux_global_load_balancing_loss": "global_load_balancing_loss",
    "aux_z_loss": "router_z_loss",
}
"""Megatron's names of what routers add to the loss, each layer's without its weight."""


def _auxiliary(config, statistics) -> dict[str, Array]:
    """Of every layer; 0 where a layer has none."""
    found = {}
    for theirs, ours in _AUXILIARY.items():
        layers = [0.0] * (_layer(config, len(config.places) - 1) + 1)
        for at, (path, index) in enumerate(config.places):
            node = statistics
            for key in (*path.split("."), "moe"):
                node = node.get(key, {})
            if ours in node:
                layers[_layer(config, at)] = node[ours].array[index] / node["tokens"].array[index]
                found[theirs] = layers
    return {name: jnp.stack(layers) for name, layers in found.items()}


def _layer(config, sublayer: int) -> int:
    """The number of Megatron's layer: of a GPT two sub-layers are one."""
    return sublayer // 2 if config.family == "gpt" else sublayer


def _megatron_tokens(inputs: Arrays) -> Batch:
    batch = {name: _ints(inputs[name]) for name in ("tokens", "labels")}
    mask = inputs.get("loss_mask", np.ones(batch["tokens"].shape))
    batch["loss_mask"] = np.asarray(mask, np.float32)
    if "position_ids" in inputs:
        batch["positions"] = _ints(inputs["position_ids"])
    return batch


def _huggingface_tokens(inputs: Arrays) -> Batch:
    tokens = _ints(inputs["input_ids"])
    batch = {"tokens": tokens}
    for theirs, ours in (("attention_mask", "segment_ids"), ("position_ids", "positions")):
        if theirs in inputs:
            batch[ours] = _ints(inputs[theirs])
    if "labels" in inputs:  # theirs stand at their own place, and -100 is none
        labels = np.pad(_ints(inputs["labels"])[:, 1:], ((0, 0), (0, 1)), constant_values=-100)
        batch["labels"] = np.where(labels == -100, 0, labels)
        batch["loss_mask"] = (labels != -100).astype(np.float32)
    return batch


def _attended(inputs: Arrays) -> np.ndarray | None:
    return inputs["attention_mask"].astype(bool) if "attention_mask" in inputs else None


def _random_or_rounded(config) -> dict[str, bool]:
    return {
        "dropout, which is random": bool(config.dropout or (config.attention and config.attention.dropout)),
        "bfloat16; cases are compared in float32": config.dtype != "float32",
    }


def _ints(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.int32)


def _bert(model, batch: Batch) -> dict[str, Array]:
    inputs = Inputs(batch["tokens"], segment_ids=batch["segment_ids"], token_types=batch.get("token_types"))
    hidden = model.hidden_states(inputs)
    loss, _ = model.loss(batch, model.counts(batch))
    computed = {"logits": model.logits(hidden), "loss": loss}
    lengths = jnp.sum(batch["segment_ids"] > 0, axis=1)
    computed["embeddings"] = POOLING["inner"](hidden.astype(jnp.float32), lengths)
    if model.sentence_head is not None:
        computed["binary_logits"] = model.sentence_logits(model.pooled(hidden))
    return computed


def _named_as_theirs(model, batch: Batch) -> dict[str, Array]:
    """What `PretrainedModel.outputs` is made of."""
    interface = load_family(model.config.family).interface
    assert interface is not None
    return interface.outputs(model, batch)


def _huggingface_sentences(inputs: Arrays) -> Batch:
    interface = load_family("bert").interface
    assert interface is not None
    return {ours: _ints(inputs[theirs]) for theirs, ours in interface.inputs.items() if theirs in inputs}


def _megatron_sentences(inputs: Arrays) -> Batch:
    batch = _megatron_tokens(inputs)
    batch["segment_ids"] = _ints(inputs["padding_mask"])
    for theirs, ours in (("types", "token_types"), ("nsp", "is_random")):
        if theirs in inputs:
            batch[ours] = _ints(inputs[theirs])
    return batch


def _encoder_decoder(model, batch: Batch) -> dict[str, Array]:
    logits = model(batch["tokens"], batch["decoder_tokens"], segment_ids=batch.get("segment_ids"))
    loss, _ = model.loss(batch, model.counts(batch))
    return {"logits": logits, "loss": loss}


def _megatron_chunks(config, inputs: Arrays) -> Arrays:
    """Neighbours lie behind one another: of every row, of every chunk."""
    rows = len(inputs["tokens"])
    length = inputs["context_tokens"].shape[1]
    shape = (rows, -1, config.neighbours, length)
    return {**inputs, "context_tokens": inputs["context_tokens"].reshape(shape)}


def _megatron_neighbours(inputs: Arrays) -> Batch:
    return {**_megatron_tokens(inputs), "retrieved": _ints(inputs["context_tokens"])}


def _looking_up(model, batch: Batch) -> dict[str, Array]:
    loss, _ = model.loss(batch, model.counts(batch))
    return {"logits": model(batch["tokens"], batch["retrieved"]), "loss": loss}


def _megatron_pairs(inputs: Arrays) -> Batch:
    return {
        "tokens": _ints(inputs["encoder_tokens"]),
        "segment_ids": _ints(inputs["encoder_keep"]),
        "decoder_tokens": _ints(inputs["decoder_tokens"]),
        "labels": _ints(inputs["labels"]),
        "loss_mask": np.asarray(inputs["loss_mask"], np.float32),
    }


def _huggingface_pairs(inputs: Arrays) -> Batch:
    batch = {"tokens": _ints(inputs["input_ids"]), "decoder_tokens": _ints(inputs["decoder_input_ids"])}
    if "attention_mask" in inputs:
        batch["segment_ids"] = _ints(inputs["attention_mask"])
    return batch


def _huggingface_encoder_decoder(model, batch: Batch) -> dict[str, Array]:
    memory, _, _ = model.encode(Inputs(batch["tokens"], segment_ids=batch.get("segment_ids")))
    logits = model(batch["tokens"], batch["decoder_tokens"], segment_ids=batch.get("segment_ids"))
    return {"logits": logits, "encoder_last_hidden_state": memory.states}


def _megatron_pictures(inputs: Arrays) -> Batch:
    return {"images": np.asarray(inputs["images"]), "target": np.asarray(inputs["target"])}


def _vision(model, batch: Batch) -> dict[str, Array]:
    """The tokens, and as their loss the mean of what a target makes of them."""
    hidden = model(model.pictures(batch["images"]))
    return {"hidden": hidden, "loss": jnp.mean(hidden * batch["target"])}


def _huggingface_pictures(inputs: Arrays) -> Batch:
    return {"images": np.asarray(inputs["pixel_values"])}


def _huggingface_two_towers(inputs: Arrays) -> Batch:
    return _huggingface_tokens(inputs) | _huggingface_pictures(inputs)


def _huggingface_seen(config, inputs: Arrays) -> Arrays:
    interface = load_family(config.family).interface
    assert interface is not None
    return interface.completed(config, {}, dict(inputs))


def _huggingface_looking(inputs: Arrays) -> Batch:
    interface = load_family("multimodal").interface
    assert interface is not None
    names = {ours: theirs for theirs, ours in interface.inputs.items() if theirs in inputs}
    return {
        ours: inputs[theirs] if ours == "patches" else _ints(inputs[theirs]) for ours, theirs in names.items()
    }


_MARK = -200
"""Megatron's token for a picture."""


def _megatron_seen(config, inputs: Arrays) -> Arrays:
    """Rows with room for the features of pictures, of which there is one a mark."""
    marks = (inputs["input_ids"] == _MARK).sum(axis=1)
    ends = np.cumsum(marks)
    pictures = [list(inputs["images"][end - number : end]) for end, number in zip(ends, marks, strict=True)]
    places = [[features_of(config, picture) for picture in row] for row in pictures]
    text = {name: inputs[name] for name in ("tokens", "labels", "loss_mask") if name in inputs}
    rows = expanded(
        *(inputs["input_ids"], inputs["labels"], inputs["loss_mask"], places),
        mark=_MARK,
        image_token=config.image_token,
    )
    # No other token is one of theirs here: the id that stands in the places may be a word's too.
    seen = np.zeros(rows.tokens.shape, bool)
    for row, of_row in enumerate(places):
        widths = np.ones(inputs["input_ids"].shape[1], int)
        widths[np.flatnonzero(inputs["input_ids"][row] == _MARK)] = of_row
        here = np.repeat(inputs["input_ids"][row] == _MARK, widths)
        seen[row, : len(here)] = here
    marked = np.where(seen, config.image_token, np.where(rows.tokens == config.image_token, -1, rows.tokens))
    counted = np.arange(seen.shape[1]) < rows.lengths[:, None]
    arrays = {"tokens": rows.tokens, "labels": rows.labels, "loss_mask": rows.loss_mask, "counted": counted}
    return text | arrays | seen_arrays(config, marked, pictures)


def _megatron_looking(inputs: Arrays) -> Batch:
    named = {name: array for name, array in inputs.items() if name != "counted"}
    floats = ("patches", "loss_mask")
    return {n: np.asarray(a, np.float32) if n in floats else _ints(a) for n, a in named.items()}


def _looking(model, batch: Batch) -> dict[str, Array]:
    seen = {name: batch[name] for name in (*SEEN, "image_at")}
    loss, _ = model.loss(batch, model.counts(batch))
    logits = model(batch["tokens"], **seen)
    return {"logits": logits, "loss": loss, "new_loss_mask": batch["loss_mask"]}


SCRIPT_NAMES = {
    "lang": "language_transformer_config",
    "vision": "vision_transformer_config",
    "proj": "vision_projection_config",
    "drop": "drop_vision_class_token",
    "shuffle": "pixel_shuffle",
    "pos": "position_embedding_type",
    "share": "share_embeddings_and_output_weights",
    "pattern": "hybrid_override_pattern",
    "tokentypes": "num_tokentypes",
    "binary": "add_binary_head",
    "sub": "vision_model_type",
}
"""What the scripts that write Megatron's cases call arguments of model classes."""
WITHOUT_MEANING = (
    *("use_cpu_initialization", "perform_initialization", "params_dtype", "pipeline_dtype"),
    *("init_method", "output_layer_init_method", "embedding_init_method", "embedding_init_method_std"),
    *("bias_dropout_fusion", "masked_softmax_fusion", "gradient_accumulation_fusion", "apply_rope_fusion"),
    *("persist_layer_norm", "memory_efficient_layer_norm", "cross_entropy_loss_fusion", "attention_backend"),
    *("attention_softmax_in_fp32", "apply_query_key_layer_scaling", "fp32_residual_connection"),
    *("deterministic_mode", "transformer_impl", "parallel_output", "calculate_per_token_loss"),
    *("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size"),
    *("retro_project_dir", "retro_block_size", "retro_neighbor_dirs", "retro_split_preprocessing", "seq"),
    "retro_verify_neighbor_count",
)
"""Settings that change nothing of what is computed in float32 by one process."""
MEGATRON = {
    family: Family(
        inputs=("tokens", "labels", "position_ids", "loss_mask"),
        needed=("tokens", "labels"),
        batch=_megatron_tokens,
        compute=_megatron_decoder,
        losses=("loss", *_AUXILIARY),
        unsupported=_random_or_rounded,
    )
    for family in ("gpt", "mamba")
} | {
    "bert": Family(
        inputs=("tokens", "labels", "loss_mask", "padding_mask", "types", "nsp"),
        needed=("tokens", "labels", "padding_mask"),
        batch=_megatron_sentences,
        compute=_bert,
        counted=lambda inputs: inputs["padding_mask"].astype(bool),
        unsupported=_random_or_rounded,
    ),
    "t5": Family(
        inputs=("encoder_tokens", "decoder_tokens", "labels", "loss_mask", "encoder_keep"),
        needed=("encoder_tokens", "decoder_tokens", "labels", "encoder_keep"),
        batch=_megatron_pairs,
        compute=_encoder_decoder,
        unsupported=_random_or_rounded,
    ),
    "retro": Family(
        inputs=("tokens", "labels", "context_tokens"),
        needed=("tokens", "labels", "context_tokens"),
        batch=_megatron_neighbours,
        compute=_looking_up,
        prepared=_megatron_chunks,
        unsupported=_random_or_rounded,
    ),
    "multimodal": Family(
        inputs=("images", "input_ids", "labels", "loss_mask", "position_ids"),
        needed=("images", "input_ids", "labels", "loss_mask"),
        prepared=_megatron_seen,
        batch=_megatron_looking,
        compute=_looking,
        counted=lambda inputs: inputs["counted"],
    ),
    "vision": Family(
        inputs=("images", "target"),
        needed=("images", "target"),
        batch=_megatron_pictures,
        compute=_vision,
        unsupported=_random_or_rounded,
    ),
}
HUGGINGFACE = {
    family: Family(
        inputs=("input_ids", "labels", "attention_mask", "position_ids"),
        needed=("input_ids",),
        batch=_huggingface_tokens,
        compute=_decoder,
        counted=_attended,
    )
    for family in ("gpt", "mamba")
} | {
    "t5": Family(
        inputs=("input_ids", "attention_mask", "decoder_input_ids"),
        needed=("input_ids", "decoder_input_ids"),
        batch=_huggingface_pairs,
        compute=_huggingface_encoder_decoder,
        counted=_attended,
    ),
    "bert": Family(
        inputs=("input_ids", "attention_mask", "token_type_ids", "position_ids"),
        needed=("input_ids",),
        batch=_huggingface_sentences,
        compute=_named_as_theirs,
        counted=_attended,
    ),
    "multimodal": Family(
        inputs=("input_ids", "attention_mask", "pixel_values", "image_sizes", *GRIDS),
        needed=("input_ids", "pixel_values"),
        prepared=_huggingface_seen,
        batch=_huggingface_looking,
        compute=_named_as_theirs,
        counted=_attended,
    ),
    "dual_encoder": Family(
        inputs=("input_ids", "attention_mask", "pixel_values"),
        needed=("input_ids", "pixel_values"),
        prepared=_huggingface_seen,
        batch=_huggingface_two_towers,
        compute=_named_as_theirs,
    ),
    "vision": Family(
        inputs=("pixel_values",),
        needed=("pixel_values",),
        batch=_huggingface_pictures,
        compute=_named_as_theirs,
    ),
}
