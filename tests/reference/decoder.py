"""Decoders: residual sub-layers one after the other, from parameters as mjx names them."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from reference.attention import attention
from reference.cross_entropy import CrossEntropy, cross_entropy, soft_capped
from reference.linear import Parameters, below
from reference.mlp import mlp
from reference.moe import moe
from reference.norm import norm


def _cross_attention(config, p: Parameters, x: np.ndarray, *, memory, memory_mask=None, **_) -> np.ndarray:
    plain = {"qk_norm_over": "head", "rope": None, "softmax": "vanilla", "window": None, "soft_cap": None}
    full = SimpleNamespace(
        **plain, qk_norm=config.qk_norm, scale=config.scale, causal=False, output_gate=False
    )
    return attention(full, p, x, memory=memory, mask=memory_mask)


def _attention(config, p: Parameters, x: np.ndarray, *, memory=None, memory_mask=None, **around):
    return attention(config, p, x, **around)


MIXERS = {
    "attention": _attention,
    "cross_attention": _cross_attention,
    "mlp": lambda config, p, x, **_: mlp(config, p, x),
    "moe": lambda config, p, x, **_: moe(config, p, x),
}
"""Name in paths → function of its config, its parameters, what it reads, and what stands around it."""


def in_order(stacked: Parameters) -> Iterator[Parameters]:
    """Each sub-layer's parameters: `segments.S.P.…` are those of place P in each repeat of segment S."""
    segments: dict[int, dict[int, Parameters]] = {}
    for path, value in stacked.items():
        word, segment, place, name = path.split(".", 3)
        assert word == "segments"
        segments.setdefault(int(segment), {}).setdefault(int(place), {})[name] = value
    assert sorted(segments) == list(range(len(segments)))
    for _, unit in sorted(segments.items()):
        (repeats,) = {len(value) for p in unit.values() for value in p.values()}
        for repeat in range(repeats):
            for _, p in sorted(unit.items()):
                yield {name: value[repeat] for name, value in p.items()}


def stack(sublayers: Iterable[Any], p: Parameters, x: np.ndarray, **around) -> np.ndarray:
    """The residual stream (batch, sequence, embed) after all sub-layers; `around` is for the mixers."""
    x = x.astype(np.float64)
    read = normed = x
    beside = np.zeros_like(x)
    for sublayer, own in zip(sublayers, in_order(p), strict=True):
        if not sublayer.parallel:
            read, beside = x + beside, np.zeros_like(x)
        if not getattr(sublayer, "shares_norm", False):
            normed = read if sublayer.norm is None else norm(sublayer.norm, below(own, "norm"), read)
        name = sublayer.mixer.name
        h = getattr(sublayer, "input_scale", 1) * normed
        h = MIXERS[name](sublayer.mixer, below(own, name), h, **around)
        if sublayer.output_norm is not None:
            h = norm(sublayer.output_norm, below(own, "output_norm"), h)
        if getattr(sublayer, "aside", False):
            beside = sublayer.residual.scale * h
            continue
        x = x + sublayer.residual.scale * h
        if sublayer.residual.norm is not None:
            x = norm(sublayer.residual.norm, below(own, "residual_norm"), x)
    return x


def sublayers_of(config) -> Iterator[SimpleNamespace]:
    """What the fields of a GPT's config say, layer by layer."""
    placed = {
        "norm": ("input", "both"),
        "output_norm": ("output", "both"),
        "residual": ("residual",),
    }
    norms = {name: config.norm if config.norm_placement in at else None for name, at in placed.items()}
    norms["residual"] = SimpleNamespace(scale=config.residual_scale, norm=norms["residual"])
    windows, ropes = itertools.cycle(config.window_pattern), itertools.cycle(config.rope_pattern)
    mixtures = itertools.cycle(config.moe_pattern)
    parts = zip(range(config.num_layers), windows, ropes, mixtures, strict=False)
    for number, keeps_window, keeps_rope, mixture in parts:
        layer = config.attention.resolve(config.hidden_size)
        if layer.window is not None and keeps_window:
            layer = dataclasses.replace(layer, rope=config.window_rope or layer.rope)
        else:
            layer = dataclasses.replace(layer, window=None)
        layer = layer if keeps_rope else dataclasses.replace(layer, rope=None)
        yield SimpleNamespace(mixer=layer, parallel=False, **norms)
        routed = config.moe is not None and mixture and number >= config.dense_layers
        behind = config.moe if routed else config.mlp
        yield SimpleNamespace(mixer=behind, parallel=config.parallel_residual, **norms)


def logits(
    config,
    p: Parameters,
    tokens: np.ndarray,
    *,
    positions: np.ndarray | None = None,
    segment_ids: np.ndarray | None = None,
) -> np.ndarray:
    """Of a GPT: (batch, sequence, vocab), without the vocabulary's padding."""
    positions = np.arange(tokens.shape[1])[None] if positions is None else positions
    x = p["embedding.weight"].astype(np.float64)[tokens] * config.embedding_scale
    if config.max_positions is not None:
        x = x + p["positions.weight"][positions]
    x = stack(sublayers_of(config), below(p, "decoder"), x, positions=positions, segment_ids=segment_ids)
    if config.norm_placement != "residual":
        x = norm(config.norm, below(p, "final_norm"), x)
    table = p["embedding.weight" if config.tie_embeddings else "head.weight"][: config.vocab_size]
    return soft_capped(x @ table.T.astype(np.float64), config.logit_soft_cap)


def loss(config, p: Parameters, batch: dict[str, np.ndarray]) -> CrossEntropy:
    """Of a GPT, summed over the unmasked tokens of a batch."""
    around = {name: batch[name] for name in ("positions", "segment_ids") if name in batch}
    rows = logits(config, p, batch["tokens"], **around)
    return cross_entropy(rows, batch["labels"], batch["loss_mask"], z_loss=config.z_loss)


def decode(config, p: Parameters, prompt: list[int], count: int) -> list[int]:
    """The `count` tokens that follow a prompt greedily: the whole row again for every token, no cache."""
    row = list(prompt)
    for _ in range(count):
        row.append(int(logits(config, p, np.array([row]))[0, -1].argmax()))
    return row[len(prompt) :]
