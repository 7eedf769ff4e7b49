"""What a text must and must not have: its first and last token, a least length, nothing twice."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mjx.inference.sampling import SamplingConfig


class Texts(NamedTuple):
    """What stands of each text when its next token is chosen."""

    prompts: Int[Array, "texts width"]
    """What they begin with, padded behind; nothing is looked at but for `no_repeat_ngram_size`."""
    begun: Int[Array, " texts"]
    """Tokens of the prompts."""
    new: Int[Array, "texts slots"]
    count: Int[Array, ""]
    """Tokens behind the prompts."""


def constrained(
    scores: Float[Array, "texts vocab"], texts: Texts, limit: Int[Array, ""], config: SamplingConfig
) -> Float[Array, "texts vocab"]:
    """Scores of the next tokens, with -inf for those that must not come; a token that must has 0, and all
    others -inf. As transformers' processors, in their order.

    Args:
        scores: Logits, or log-probabilities.
        texts: Behind which they stand.
        limit: New tokens of a text, at most.
        config: What is asked for.
    """
    vocab = jnp.arange(scores.shape[-1])
    if size := config.no_repeat_ngram_size:
        scores = jnp.where(_would_repeat(texts, size, len(vocab)), -jnp.inf, scores)
    if config.stop_tokens and (config.min_new_tokens or config.min_length):
        lengths = texts.begun + texts.count
        short = (texts.count < config.min_new_tokens) | (lengths < config.min_length)
        stops = jnp.isin(vocab, jnp.array(config.stop_tokens, jnp.int32))
        scores = jnp.where(short[:, None] & stops, -jnp.inf, scores)
    forced_at = (
        (config.forced_bos_token, texts.begun + texts.count == 1),
        (config.forced_eos_token, jnp.broadcast_to(texts.count == limit - 1, texts.begun.shape)),
    )
    for token, here in forced_at:
        if token is not None:
            forced = jnp.where(vocab == token, 0.0, -jnp.inf)
            scores = jnp.where(here[:, None], forced, scores)
    return scores


def _would_repeat(texts: Texts, size: int, vocab: int) -> Bool[Array, "texts vocab"]:
    """Which tokens would end `size` tokens that stand in the text already."""
    rows, width = texts.prompts.shape
    slots, lengths = width + texts.new.shape[1], texts.begun + texts.count
    at = jnp.broadcast_to(jnp.arange(slots), (rows, slots))
    of_prompt = jnp.pad(texts.prompts, ((0, 0), (0, slots - width)))
    behind = jnp.take_along_axis(texts.new, at - texts.begun[:, None], axis=1, mode="clip")
    tokens = jnp.where(at < texts.begun[:, None], of_prompt, behind)

    starts = jnp.arange(slots - size + 1)
    same = starts + size <= lengths[:, None]
    for place in range(size - 1):
        last = jnp.take_along_axis(tokens, lengths[:, None] - size + 1 + place, axis=1, mode="clip")
        same &= tokens[:, place : place + len(starts)] == last
    ends = jnp.where(same, tokens[:, size - 1 :], vocab)
    banned = jnp.zeros((rows, vocab), bool)
    return banned.at[jnp.arange(rows)[:, None], ends].set(True, mode="drop")
