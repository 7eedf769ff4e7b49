"""Drawing the next token from a model's logits."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mjx.errors import InputError

GREEDY_BELOW = 1e-6
"""Temperatures whose limit is taken: over smaller ones logits become infinite, and then all alike."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How text is continued. The filters apply in the order temperature, top_k, top_p."""

    max_new_tokens: int = 128
    """Tokens added to each prompt, unless a stop token comes first."""
    temperature: float = 1.0
    """Logits are divided by it; 0 (and anything below 1e-6) is greedy: always the most likely token."""
    top_k: int | None = None
    """Draw only from this many most likely tokens (and those as likely as the last of them)."""
    top_p: float = 1.0
    """Draw only from the fewest most likely tokens whose probabilities reach this sum
    (nucleus sampling, Holtzman et al. 2020)."""
    seed: int = 0
    """The same seed draws the same text."""
    stop_tokens: tuple[int, ...] = ()
    """Token ids that end a row; they are not part of its text."""
    start_token: int | None = None
    """Token id that the text of a model with an encoder begins with; null: what its folder says."""
    beams: int = 1
    """Above 1, text is not drawn but searched for: so many unfinished texts are kept at every token, until
    there are as many finished ones and none that is unfinished, as long as it is, beats the worst."""
    length_penalty: float = 1.0
    """Of a search with beams: log-probabilities are divided by length ** length_penalty. Above 0 longer texts
    gain by it."""
    early_stopping: bool | Literal["never"] = False
    """Of a search with beams: when a row is done. true: as soon as there are `beams` finished texts. never:
    when no unfinished one could beat them however long it became. false: could, as long as it is."""
    min_new_tokens: int = 0
    """No stop token before so many tokens are added."""
    min_length: int = 0
    """No stop token before prompt and text (of a model with an encoder: start token and text) have so many
    tokens together."""
    no_repeat_ngram_size: int = 0
    """No so many tokens in a row, prompt or start token counted, come a second time; 0: they may."""
    forced_bos_token: int | None = None
    """Token id that follows where a single token stands, such as the start token: the language of a
    translation."""
    forced_eos_token: int | None = None
    """Token id of the last token where max_new_tokens ends a text."""
    prefill_chunk: int = 2048
    """A longer prompt is read in parts of so many tokens, so that what is there of it at once does not grow
    with it (but for the caches of attention layers)."""

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise InputError(f"sampling.max_new_tokens = {self.max_new_tokens} must be at least 1")
        if self.prefill_chunk < 1:
            raise InputError(f"sampling.prefill_chunk = {self.prefill_chunk} must be at least 1")
        if self.beams < 1:
            raise InputError(f"sampling.beams = {self.beams} must be at least 1 (1 is no search)")
        if not math.isfinite(self.length_penalty):
            raise InputError(f"sampling.length_penalty = {self.length_penalty} must be a number")
        for name in ("min_new_tokens", "min_length", "no_repeat_ngram_size"):
            if getattr(self, name) < 0:
                raise InputError(f"sampling.{name} = {getattr(self, name)} must be at least 0 (0 is none)")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(
                f"sampling.temperature = {self.temperature} must be a number of at least 0 (0 is greedy)"
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"sampling.top_k = {self.top_k} must be at least 1, or null for all tokens")
        if not 0 < self.top_p <= 1:
            raise InputError(f"sampling.top_p = {self.top_p} must be above 0 and at most 1")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"sampling.seed = {self.seed} must be from 0 to {2**32 - 1}")


def row_keys(
    seed: Int[Array, ""], row_seeds: Int[Array, " batch"], positions: Int[Array, " batch"]
) -> Key[Array, " batch"]:
    """A key for the token at `positions` of every row, whatever stands beside it in the batch.

    Always threefry: other generators draw different numbers for a row when the batch's size differs.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.vmap(lambda row, at: jax.random.fold_in(jax.random.fold_in(key, row), at))(
        row_seeds, positions
    )


def sample(
    logits: Float[Array, "batch vocab"], keys: Key[Array, " batch"], config: SamplingConfig
) -> Int[Array, " batch"]:
    """One token for each row, drawn with the row's own key."""
    if config.temperature < GREEDY_BELOW:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jax.vmap(jax.random.categorical)(keys, filtered(logits, config)).astype(jnp.int32)


def filtered(logits: Float[Array, "batch vocab"], config: SamplingConfig) -> Float[Array, "batch vocab"]:
    """Logits over temperature, -inf where a token is filtered out; temperature is at least GREEDY_BELOW."""
    scores = logits.astype(jnp.float32) / config.temperature
    if config.top_k is not None and config.top_k < scores.shape[-1]:
        last = jax.lax.top_k(scores, config.top_k)[0][:, -1:]
        scores = jnp.where(scores >= last, scores, -jnp.inf)
    if config.top_p < 1:
        scores = jnp.where(_nucleus(scores, config.top_p), scores, -jnp.inf)
    return scores


def _nucleus(scores: Float[Array, "batch vocab"], top_p: float) -> Bool[Array, "batch vocab"]:
    """Where a token belongs to the fewest most likely ones that reach `top_p`.

    Walking up from the least likely token (of equal ones, from the lowest id), a token is out as
    long as it and those before it hold at most 1 - top_p. Sorting the vocabulary for that would cost
    more than a small model's layers, so the score at which the walk leaves the outside is bisected:
    floats of one sign order as their bits do, hence 32 halvings find it exactly.
    """
    probabilities = jax.nn.softmax(scores, axis=-1)
    bits = jax.lax.bitcast_convert_type(
        scores + 0.0, jnp.int32
    )  # -0.0 + 0.0 is 0.0: equal scores, equal bits
    rank = jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)
    outside = 1 - top_p

    def mass(chosen: Array) -> Float[Array, "batch 1"]:
        return jnp.sum(jnp.where(chosen, probabilities, 0), axis=-1, keepdims=True)

    def halve(_, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds  # the wanted rank is in [low, high]
        middle = (low & high) + ((low ^ high) >> 1)  # the mean without overflow
        enough = mass(rank <= middle) > outside
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    top = jnp.max(rank, axis=-1, keepdims=True)
    threshold, _ = jax.lax.fori_loop(0, 32, halve, (jnp.min(rank, axis=-1, keepdims=True), top))
    tied = rank == threshold
    walked = mass(rank < threshold) + jnp.cumsum(jnp.where(tied, probabilities, 0), axis=-1)
    inside = (rank > threshold) | (tied & (walked > outside))
    # Rounding must not empty the nucleus: the walk's last token always stays.
    vocab = rank.shape[-1]
    last = vocab - 1 - jnp.argmax(rank[:, ::-1], axis=-1)
    return inside | (jnp.arange(vocab) == last[:, None])
