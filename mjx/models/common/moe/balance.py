"""What a router adds to the loss, and what it says: experts should get the same number of tokens."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mjx.models.common.context import Context
from mjx.models.common.moe.config import MoEConfig
from mjx.models.report import Statistic


class Said(NamedTuple):
    """As in `Mixed`."""

    losses: Mapping[str, Float[Array, ""]]
    statistics: Mapping[str, Statistic]


def balance(
    config: MoEConfig,
    logits: Float[Array, "batch sequence experts"],
    scores: Float[Array, "batch sequence experts"],
    ids: Int[Array, "batch sequence top_k"],
    keep: Bool[Array, "batch sequence top_k"] | None,
    context: Context,
) -> Said:
    """The losses, and the statistics: of tokens that count, over all devices.

    The shares in load-balancing losses are of the best experts by their scores alone, without biases and
    groups, as in Megatron-Core. Each loss is said as well, times the number of tokens and without its weight.
    """
    if context.counted is None:
        return Said({}, {})
    router = config.router
    mask = (context.counted > 0).astype(jnp.float32)
    tokens = jnp.sum(mask)
    load = _count(ids, config.experts, mask[..., None])
    kept = 1.0 if keep is None else keep.astype(jnp.float32)
    taken = load if keep is None else _count(ids, config.experts, mask[..., None] * kept)
    statistics = {"load": Statistic(jnp.sum(load, axis=0)), "tokens": Statistic(tokens)}
    statistics["dropped"] = Statistic(jnp.sum(load - taken, axis=0))

    raw: dict[str, Array] = {}
    balanced = router.load_balancing_loss or router.sequence_load_balancing_loss
    if balanced or router.global_load_balancing_loss:
        if router.scores != "softmax":
            scores = over_sum(scores)
        best, chosen = ids, load
        if router.expert_bias_rate is not None or router.groups is not None:
            best = jax.lax.top_k(jax.lax.stop_gradient(scores), config.top_k)[1]
            chosen = _count(best, config.experts, mask[..., None])
        # Masked, so that tokens that do not count add nothing.
        scores = scores * mask[..., None]
        spread = jnp.sum(scores, axis=(0, 1))
        if router.load_balancing_loss:
            raw["load_balancing_loss"] = _unevenness(config, jnp.sum(chosen, 0), spread, tokens, tokens)
        if router.sequence_load_balancing_loss:
            shares = _document_shares(best, mask, config.experts, context.segment_ids)
            total = config.experts / config.top_k * jnp.sum(shares * scores)
            raw["sequence_load_balancing_loss"] = total / jnp.maximum(tokens, 1)
        if router.global_load_balancing_loss:
            whole, seen = jnp.sum(chosen, 0), tokens
            statistics["chosen"] = Statistic(whole)
            if context.so_far is not None:
                whole = whole + context.so_far["chosen"].array
                seen = seen + context.so_far["tokens"].array
            raw["global_load_balancing_loss"] = _unevenness(config, whole, spread, seen, tokens)
    if router.z_loss:
        squares = jnp.square(jax.nn.logsumexp(logits, axis=-1))
        raw["router_z_loss"] = jnp.sum(squares * mask) / jnp.maximum(tokens, 1)
    weights = {
        "load_balancing_loss": router.load_balancing_loss,
        "sequence_load_balancing_loss": router.sequence_load_balancing_loss,
        "global_load_balancing_loss": router.global_load_balancing_loss,
        "router_z_loss": router.z_loss,
    }
    for name, value in raw.items():
        statistics[name] = Statistic(jax.lax.stop_gradient(value) * tokens)
    return Said({name: weights[name] * value for name, value in raw.items()}, statistics)


def over_sum(scores: Float[Array, "*tokens experts"]) -> Float[Array, "*tokens experts"]:
    """Shares that sum to 1, or to 0 where all are 0 (1e-20 is Megatron-Core's)."""
    return scores / (jnp.sum(scores, axis=-1, keepdims=True) + 1e-20)


def _count(
    ids: Int[Array, "batch sequence top_k"], experts: int, weights: Float[Array, "batch sequence #top_k"]
) -> Float[Array, "batch experts"]:
    """Of each row, how often each expert is chosen."""
    return jnp.sum((ids[..., None] == jnp.arange(experts)) * weights[..., None], axis=(1, 2))


def _document_shares(
    ids: Int[Array, "batch sequence top_k"],
    mask: Float[Array, "batch sequence"],
    experts: int,
    segment_ids: Int[Array, "batch sequence"] | None,
) -> Float[Array, "batch #sequence experts"]:
    """For every token, how often each expert is chosen in its document, over the document's tokens."""
    if segment_ids is None:
        lengths = jnp.maximum(jnp.sum(mask, axis=1), 1)
        return (_count(ids, experts, mask[..., None]) / lengths[:, None])[:, None]
    chosen = jnp.sum((ids[..., None] == jnp.arange(experts)) * mask[..., None, None], axis=2)
    counts = jnp.concatenate([chosen, mask[..., None]], axis=2)
    before = jnp.pad(jnp.cumsum(counts, axis=1), ((0, 0), (1, 0), (0, 0)))
    places = jnp.arange(mask.shape[1])
    changes = segment_ids[:, 1:] != segment_ids[:, :-1]
    starts = jnp.where(jnp.pad(changes, ((0, 0), (1, 0))), places, 0)
    ends = jnp.where(jnp.pad(changes, ((0, 0), (0, 1))), places + 1, mask.shape[1])
    first = jax.lax.cummax(starts, axis=1)[..., None]
    last = jax.lax.cummin(ends, axis=1, reverse=True)[..., None]
    inside = jnp.take_along_axis(before, last, axis=1) - jnp.take_along_axis(before, first, axis=1)
    return inside[..., :-1] / jnp.maximum(inside[..., -1:], 1)


def _unevenness(
    config: MoEConfig,
    chosen: Float[Array, " experts"],
    spread: Float[Array, " experts"],
    choosing: Float[Array, ""],
    tokens: Float[Array, ""],
) -> Float[Array, ""]:
    """experts · Σ (share of the choices) · (mean score): 1 if all are equal.

    `chosen` are the choices of `choosing` tokens, `spread` the scores' sums over `tokens`.
    """
    both = jnp.maximum(choosing, 1) * jnp.maximum(tokens, 1)
    return config.experts / config.top_k * jnp.sum(chosen * spread) / both


def left_out(
    statistics: Mapping[str, Statistic],
    ids: Int[Array, "batch sequence top_k"],
    missed: Bool[Array, "batch sequence top_k"] | None,
    context: Context,
) -> Mapping[str, Statistic]:
    """With choices that found no room on their way counted as dropped."""
    if missed is None or context.counted is None:
        return statistics
    dropped = statistics["dropped"]
    weights = missed * (context.counted > 0).astype(jnp.float32)[..., None]
    more = jnp.sum(_count(ids, dropped.array.shape[0], weights), axis=0)
    return {**statistics, "dropped": Statistic(dropped.array + more)}
