"""Mixtures of experts (Shazeer et al. 2017): one token, one choice and one expert at a time."""

import dataclasses
import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from reference.linear import Parameters, below, linear
from reference.mlp import mlp, sigmoid


class Routes(NamedTuple):
    """Of every token (batch, sequence, …)."""

    logits: np.ndarray
    scores: np.ndarray
    ids: np.ndarray
    probabilities: np.ndarray
    """Also those of choices that are dropped."""
    kept: np.ndarray


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


SCORES = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "sqrt-softplus": lambda x: np.sqrt(np.log1p(np.exp(x))),
}


def best(values: np.ndarray, number: int) -> list[int]:
    """The places of the largest; of equals the first."""
    return sorted(range(len(values)), key=lambda place: (-values[place], place))[:number]


def choose(router, ranked: np.ndarray, top_k: int) -> list[int]:
    """The experts of one token."""
    open_ = range(len(ranked))
    if router.groups is not None:
        groups = np.split(np.arange(len(ranked)), router.groups)
        each = top_k // router.top_groups
        worth = np.array([np.sort(ranked[group])[::-1][:each].sum() for group in groups])
        open_ = [expert for group in best(worth, router.top_groups) for expert in groups[group]]
    masked = np.where(np.isin(np.arange(len(ranked)), open_), ranked, -np.inf)
    return best(masked, top_k)


def balanced(logits: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Sinkhorn's scaling of the tokens that count, up to the tolerance of Megatron-Core."""
    ranked, cost = logits.copy(), np.exp(logits[counted > 0])
    tokens, experts = cost.shape
    columns, error = np.ones(experts), np.inf
    while error > 1e-4:
        rows = 1 / tokens / (cost @ columns + 1e-8)
        old, columns = columns, 1 / experts / (rows @ cost + 1e-8)
        error = np.abs(old - columns).mean()
    ranked[counted > 0] = cost * columns * rows[:, None]
    return ranked


def route(config, p: Parameters, x: np.ndarray, *, counted=None, training: bool = False) -> Routes:
    """A `MoEConfig`'s router, with parameters `kernel`, `bias`, `expert_bias`."""
    router = config.router
    counted = np.ones(x.shape[:2]) if counted is None else counted
    logits = x.astype(np.float64) @ p["kernel"] + p.get("bias", np.float64(0))
    scores = SCORES[router.scores](logits)
    ranked = scores + p.get("expert_bias", np.float64(0))
    if router.scores == "softmax" and router.groups is not None and router.normalized:
        ranked = logits
    if router.sinkhorn and training:
        ranked = balanced(logits, counted)
    ids = np.zeros((*x.shape[:2], config.top_k), int)
    probabilities = np.zeros(ids.shape)
    for token in np.ndindex(*x.shape[:2]):
        ids[token] = choose(router, ranked[token], config.top_k)
        chosen = scores[token][ids[token]]
        probabilities[token] = router.scaling * (chosen / chosen.sum() if router.normalized else chosen)
    kept = np.ones(ids.shape, bool)
    if config.capacity_factor is not None and training:
        kept = within_capacity(config, ids, probabilities, counted)
    return Routes(logits, scores, ids, probabilities, kept)


def within_capacity(config, ids: np.ndarray, probabilities: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Which choices an expert has room for: tokens that count first, by probability, by position, by row."""
    batch, sequence, top_k = ids.shape
    room = math.ceil(batch * sequence * top_k / config.experts * config.capacity_factor)
    waiting = defaultdict(list)
    for row, place, rank in np.ndindex(*ids.shape):
        worth = float(probabilities[row, place, rank]) if config.drop_by == "probability" else 0.0
        waiting[ids[row, place, rank]].append((counted[row, place] == 0, -worth, place, row, rank))
    kept = np.zeros(ids.shape, bool)
    for choices in waiting.values():
        for _, _, place, row, rank in sorted(choices)[:room]:
            kept[row, place, rank] = True
    return kept


def losses(
    config, routes: Routes, counted: np.ndarray, *, segment_ids=None, earlier=None
) -> dict[str, float]:
    """Without their weights. `earlier` are how often each expert was best so far, and of how many tokens."""
    scores = routes.scores / routes.scores.sum(-1, keepdims=True)
    segment_ids = np.ones(counted.shape, int) if segment_ids is None else segment_ids
    tokens, documents = [], defaultdict(list)
    for token in np.ndindex(*counted.shape):
        if counted[token]:
            chosen = np.zeros(config.experts)
            chosen[best(routes.scores[token], config.top_k)] = 1
            tokens.append((chosen, scores[token]))
            documents[token[0], segment_ids[token]].append((chosen, scores[token]))

    def uneven(some, chosen=None, choosing=None) -> float:
        shares = sum(c for c, _ in some) if chosen is None else chosen
        mean = sum(s for _, s in some) / len(some)
        return config.experts * (shares / (config.top_k * (choosing or len(some)))) @ mean

    so_far, seen = (0, 0) if earlier is None else earlier
    squares = np.log(np.exp(routes.logits).sum(-1)) ** 2
    return {
        "load_balancing_loss": uneven(tokens),
        "sequence_load_balancing_loss": sum(len(d) * uneven(d) for d in documents.values()) / len(tokens),
        "global_load_balancing_loss": uneven(tokens, so_far + sum(c for c, _ in tokens), seen + len(tokens)),
        "router_z_loss": squares[counted > 0].mean(),
    }


def moe(config, p: Parameters, x: np.ndarray, *, counted=None, training: bool = False) -> np.ndarray:
    """The sub-layer of a `MoEConfig`."""
    routes = route(config, below(p, "router"), x, counted=counted, training=training)
    read = x if config.latent is None else linear(p, "into_latent", "bse,el->bsl", x)
    y = np.zeros(read.shape)
    for row, place, rank in np.ndindex(*routes.ids.shape):
        if not routes.kept[row, place, rank]:
            continue
        expert = routes.ids[row, place, rank]
        own = {name: value[expert] for name, value in below(p, "experts").items()}
        token, factor = read[row, place][None, None], routes.probabilities[row, place, rank]
        on_input = config.probabilities_on == "input"
        out = mlp(config.mlp, own, token * factor if on_input else token)[0, 0]
        y[row, place] += out if on_input else factor * out
    if config.latent is not None:
        y = linear(p, "out_of_latent", "bsl,le->bse", y)
    if config.shared_features is not None:
        shared = mlp(dataclasses.replace(config.mlp, features=config.shared_features), below(p, "shared"), x)
        gate = x.astype(np.float64) @ p["shared_gate.kernel"] if config.shared_gate else np.inf
        y = y + shared * sigmoid(np.broadcast_to(gate, x.shape[:2]))[..., None]
    return y
