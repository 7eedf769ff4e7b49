"""Beam search: the likeliest texts that are found by keeping a few unfinished ones (Sutskever et al. 2014).

Scores are log-probabilities over a power of the lengths, which Wu et al. (2016) have in another form.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int

from mjx.inference.constraints import Texts, constrained
from mjx.inference.sampling import SamplingConfig
from mjx.models.common.parameter import bind
from mjx.models.family import Batch, Generates
from mjx.sharding import shard
from mjx.trees import Tree

_NEVER = -1e9
"""On the score of what must not be chosen, below that of any text."""


class Beam(NamedTuple):
    """A text that beam search found."""

    tokens: list[int]
    """Without the stop token."""
    score: float
    """Its log-probability over length ** length_penalty; the stop token counts in both."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Found:
    """The best finished texts of each row, the best first."""

    tokens: Int[Array, "batch beams slots"]
    lengths: Int[Array, "batch beams"]
    """Without the stop token."""
    scores: Float[Array, "batch beams"]
    there: Bool[Array, "batch beams"]
    """Whether there are so many."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BeamState:
    """All that changes from token to token."""

    step: Int[Array, ""]
    """Tokens that each running text has."""
    logits: Float[Array, "texts vocab"]
    """Behind the running texts; those of a row follow one another."""
    caches: Any
    running: Int[Array, "batch beams slots"]
    scores: Float[Array, "batch beams"]
    """Log-probabilities of the running texts, the best first."""
    found: Found
    open: Bool[Array, " batch"]
    """Whether a running text may still become better than the worst of those that are finished."""


class BeamPrograms:
    """The compiled parts of a search with one model."""

    def __init__(self, model: Generates, everywhere: NamedSharding | None):
        """`everywhere`: the sharding of what every process reads."""
        self._model = model
        self.begin = jax.jit(self._begin, static_argnames="slots")
        self.read_on = jax.jit(self._read_on, donate_argnames=("logits", "caches"))
        self.search = jax.jit(self._search, static_argnames=("slots", "config"), out_shardings=everywhere)

    def _begin(
        self, parameters: Tree, prompt: Batch, lengths: Int[Array, " batch"], *, slots: int
    ) -> tuple[Float[Array, "batch vocab"], Any]:
        return bind(self._model, parameters).begin(prompt, lengths, slots)

    def _read_on(
        self,
        parameters: Tree,
        logits: Float[Array, "batch vocab"],
        caches: Any,
        lengths: Int[Array, " batch"],
        tokens: Int[Array, "batch sequence"],
        start: Int[Array, ""],
    ) -> tuple[Float[Array, "batch vocab"], Any]:
        """Logits behind the prompts' tokens from `start` on; of rows that have none there, as they were."""
        offset = jnp.minimum(start, lengths)
        new, caches = bind(self._model, parameters).read_on(tokens, caches, offset, lengths)
        return jnp.where((offset < lengths)[:, None], new, logits), caches

    def _search(
        self,
        parameters: Tree,
        logits: Float[Array, "batch vocab"],
        caches: Any,
        prompts: Int[Array, "batch width"],
        lengths: Int[Array, " batch"],
        limit: Int[Array, ""],
        penalty: Float[Array, ""],
        *,
        slots: int,
        config: SamplingConfig,
    ) -> Found:
        """From the logits behind the prompts to texts of at most `limit` tokens. A row without a prompt has
        none."""
        model, beams, batch = bind(self._model, parameters), config.beams, len(lengths)
        texts = jnp.repeat(jnp.arange(batch), beams)
        offset = lengths[texts]
        empty = jnp.zeros((batch, beams, slots), jnp.int32)
        never = jnp.full((batch, beams), _NEVER, jnp.float32)
        state = BeamState(
            step=jnp.zeros((), jnp.int32),
            logits=logits[texts],
            caches=model.rows_of(caches, texts),
            running=empty,
            scores=never.at[:, 0].set(0.0),  # all texts of a row are the same one
            found=Found(empty, jnp.zeros((batch, beams), jnp.int32), never, jnp.zeros((batch, beams), bool)),
            open=lengths > 0,
        )

        def unfinished(state: BeamState) -> Bool[Array, ""]:
            return (state.step < limit) & jnp.any(state.open)

        def step(state: BeamState) -> BeamState:
            new = state.running.reshape(-1, slots)
            standing = Texts(prompts[texts], offset, new, state.step)
            state, came_from = _longer(state, standing, limit, penalty, config)
            rows = (jnp.arange(batch)[:, None] * beams + came_from).reshape(-1)
            last = jnp.take(state.running, state.step - 1, axis=2).reshape(-1, 1)
            logits, caches = model.next(last, model.rows_of(state.caches, rows), offset + state.step - 1)
            return dataclasses.replace(state, logits=logits[:, 0], caches=caches)

        return jax.lax.while_loop(unfinished, step, state).found


def _longer(
    state: BeamState,
    standing: Texts,
    limit: Int[Array, ""],
    penalty: Float[Array, ""],
    config: SamplingConfig,
) -> tuple[BeamState, Int[Array, "batch beams"]]:
    """Texts with one more token, and which text each of them was; logits and caches are still the old ones.

    Of the candidates so many are looked at that there are enough running ones however many stop; only those
    among the first `beams` may become finished texts.
    """
    batch, beams, slots = state.running.shape
    log_probabilities = jax.nn.log_softmax(shard(state.logits, "batch", None).astype(jnp.float32), axis=-1)
    log_probabilities = constrained(log_probabilities, standing, limit, config)
    vocab = log_probabilities.shape[-1]
    totals = state.scores[:, :, None] + log_probabilities.reshape(batch, beams, vocab)
    number = min(max(2, 1 + len(config.stop_tokens)) * beams, beams * vocab)
    scores, at = jax.lax.top_k(totals.reshape(batch, -1), number)
    came_from, tokens = at // vocab, (at % vocab).astype(jnp.int32)
    texts = _chosen(state.running, came_from)
    texts = jnp.where(jnp.arange(slots) == state.step, tokens[:, :, None], texts)
    count = state.step + 1
    stops = jnp.isin(tokens, jnp.array(config.stop_tokens, jnp.int32))
    ends = stops | (count == limit)

    divisor = count.astype(jnp.float32) ** penalty
    finishes = ends & (jnp.arange(number) < beams)
    final = scores / divisor + _NEVER * (~finishes | ~state.open[:, None])
    new = Found(texts, jnp.where(stops, state.step, count), final, finishes & state.open[:, None])
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), state.found, new)
    best = jax.lax.top_k(both.scores, beams)[1]
    found = jax.tree.map(lambda array: _chosen(array, best), both)

    left, on = jax.lax.top_k(scores + _NEVER * ends, beams)
    worst = jnp.where(found.there, found.scores.min(axis=1, keepdims=True), _NEVER)
    if config.early_stopping == "never":
        divisor = jnp.where(penalty > 0, limit.astype(jnp.float32) ** penalty, divisor)
    goes_on = jnp.any(left[:, :1] / divisor > worst, axis=1)
    if config.early_stopping is True:
        goes_on &= ~jnp.all(found.there, axis=1)
    longer = dataclasses.replace(
        state,
        step=count,
        running=_chosen(texts, on),
        scores=left,
        found=found,
        open=state.open & goes_on,
    )
    return longer, _chosen(came_from, on)


def _chosen(array: Array, places: Int[Array, "batch number"]) -> Array:
    """Of each row, the entries at these places."""
    return jax.vmap(lambda row, at: row[at])(array, places)
