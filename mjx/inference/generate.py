"""Continuing prompts: a pass over them, a long one's in parts, then token by token with caches."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from mjx.errors import InputError
from mjx.inference.beams import Beam, BeamPrograms
from mjx.inference.constraints import Texts, constrained
from mjx.inference.placement import Placement
from mjx.inference.prompts import lay_prompts
from mjx.inference.rows import rounded
from mjx.inference.sampling import SamplingConfig, row_keys, sample
from mjx.models.common.parameter import bind, parameters_of
from mjx.models.common.pictures import View
from mjx.models.family import Batch, Generates
from mjx.sharding import Rules, shard
from mjx.trees import Tree

OnTokens = Callable[[list[list[int]]], None]
"""Is told each row's new tokens, some at a time."""

STREAM_BLOCK = 16
"""Tokens a row between two calls of `on_tokens`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodeState:
    """All that changes from token to token."""

    step: Int[Array, ""]
    """Tokens drawn for every row that has not ended."""
    last: Int[Array, " batch"]
    """The token drawn last, which the caches do not hold yet."""
    lengths: Int[Array, " batch"]
    """Tokens of the prompt and those behind it, without `last`: all that the caches hold once it is read."""
    ended: Bool[Array, " batch"]
    counts: Int[Array, " batch"]
    """Tokens drawn before a stop token."""
    drawn: Int[Array, "batch slots"]
    caches: Any


class Request(NamedTuple):
    """What is asked for, in arrays: all that draws depend on besides logits."""

    seed: Int[Array, ""]
    row_seeds: Int[Array, " batch"]
    rows: Int[Array, "batch width"]
    """What the texts continue (`LaidPrompts.rows`)."""
    lengths: Int[Array, " batch"]
    """Tokens of the prompts."""
    limit: Int[Array, ""]
    """New tokens of a text, at most."""


class Generator:
    """Continues prompts with one model. Programs are compiled per batch size and rounded lengths, once.

    Prompts longer than `SamplingConfig.prefill_chunk` are read in parts, all but the first by one program. A
    model whose caches do not grow has the same programs for prompts of any length beyond that.
    """

    def __init__(
        self,
        model: Generates,
        parameters: Tree,
        *,
        mesh: Mesh | None = None,
        rules: Rules | None = None,
    ):
        """`model` may be abstract (shapes in place of arrays); only `parameters` are computed with.

        Without `mesh`, the one in force is used, if any. Of `rules` the rows of the token axes are
        left out: a step has one token, which nothing can split.
        """
        self._placement = Placement(mesh, rules)
        self._stacked = model
        self._model = jax.eval_shape(lambda model: model.unrolled(), model)
        places, here = None, self._placement.everywhere
        if here is not None:
            others: Any = dict.fromkeys(("step", "last", "lengths", "caches"))
            read: Any = dict.fromkeys(("ended", "counts", "drawn"), here)
            places = DecodeState(**others, **read)
        self._prefill = jax.jit(
            self._prefill_program, static_argnames=("slots", "config"), out_shardings=places
        )
        self._read_on = jax.jit(
            self._read_on_program, static_argnames="config", donate_argnames="state", out_shardings=places
        )
        self._decode = jax.jit(
            self._decode_program, static_argnames="config", donate_argnames="state", out_shardings=places
        )
        self._beams = BeamPrograms(self._model, here)
        self.load(parameters)

    @property
    def model(self) -> Generates:
        """The definition."""
        return self._stacked

    def load(self, parameters: Tree) -> None:
        """Take other parameters of the same model; what is compiled stays."""
        lay_out = self._placement.lay_out
        stacked = bind(self._stacked, lay_out(self._stacked, parameters))
        self._parameters = lay_out(self._model, parameters_of(stacked.unrolled()))

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        config: SamplingConfig,
        *,
        row_seeds: Sequence[int] | None = None,
        on_tokens: OnTokens | None = None,
        pictures: Sequence[Sequence[View]] = (),
    ) -> list[list[int]]:
        """The new tokens of each row, without prompt and stop token; with `beams` those of the best text.

        A row's text depends on its prompt, the seed and its entry of `row_seeds` (default: its index),
        not on the other rows. `on_tokens` hears of the tokens as they come, those of a search all at once.
        `pictures` are those of each prompt, which stand in its image tokens, in order.

        Raises:
            InputError: a prompt is empty, has an unknown id, or is too long for the model's positions; or the
                model needs a `start_token`; or does not see, or a prompt's image tokens are not those of its
                pictures.
        """
        if config.beams > 1:
            texts = [beams[0].tokens for beams in self.search(prompts, config, pictures)]
            if on_tokens is not None and any(texts):
                on_tokens(texts)
            return texts
        seeds = list(range(len(prompts)) if row_seeds is None else row_seeds)
        if len(seeds) != len(prompts):
            raise InputError(
                f"row_seeds has {len(seeds)} entries for {len(prompts)} prompts; it needs one for each"
            )
        laid = lay_prompts(self._model, prompts, config, self._placement.batch_shards, pictures)
        if laid is None:
            return []
        of_rows = np.array([*seeds, *[0] * (len(laid.lengths) - len(seeds))]).astype(np.uint32)
        numbers = np.uint32(config.seed), of_rows, laid.rows, laid.lengths, np.int32(config.max_new_tokens)

        static = _static(config)
        texts = [[] for _ in prompts]
        with self._placement.in_force():
            request = Request(*self._placement.put(numbers))
            state = self._prefill(
                self._parameters, self._placement.put(laid.prompt), request, slots=laid.slots, config=static
            )
            for part in laid.parts:
                state = self._read_on(
                    self._parameters, state, *self._placement.put(part), request, config=static
                )
            limit = 1
            while True:
                ended = self._read(state, texts, on_tokens)
                if ended or limit == config.max_new_tokens:
                    return texts
                block = config.max_new_tokens if on_tokens is None else STREAM_BLOCK
                limit = min(limit + block, config.max_new_tokens)
                until = self._placement.put(np.int32(limit))
                state = self._decode(self._parameters, state, until, request, config=static)

    def search(
        self,
        prompts: Sequence[Sequence[int]],
        config: SamplingConfig,
        pictures: Sequence[Sequence[View]] = (),
    ) -> list[list[Beam]]:
        """The best texts of each row that a search with `config.beams` finds, at most so many, best first.

        Raises:
            InputError: as a call.
        """
        laid = lay_prompts(self._model, prompts, config, self._placement.batch_shards, pictures)
        if laid is None:
            return []
        with self._placement.in_force():
            prompt, rows, lengths = self._placement.put((laid.prompt, laid.rows, laid.lengths))
            logits, caches = self._beams.begin(self._parameters, prompt, lengths, slots=laid.slots)
            for part in laid.parts:
                logits, caches = self._beams.read_on(
                    self._parameters, logits, caches, lengths, *self._placement.put(part)
                )
            numbers = (np.int32(config.max_new_tokens), np.float32(config.length_penalty))
            found = self._beams.search(
                *(self._parameters, logits, caches, rows, lengths, *self._placement.put(numbers)),
                slots=rounded(config.max_new_tokens, 16),
                config=_static(config),
            )
        found = jax.device_get(found)
        return [
            [
                Beam(found.tokens[row, at, : found.lengths[row, at]].tolist(), float(found.scores[row, at]))
                for at in range(config.beams)
                if found.there[row, at]
            ]
            for row in range(len(prompts))
        ]

    def _prefill_program(
        self,
        parameters: Tree,
        prompt: Batch,
        request: Request,
        *,
        slots: int,
        config: SamplingConfig,
    ) -> DecodeState:
        """Fill the caches and draw each row's first token.

        Prompts are padded on the right, where nothing looks: a token sees only what stands before it,
        and decoding overwrites the padding's slots before it reads them. A row of length 0 is padding.
        Behind a prompt that is longer than its row, nothing is drawn that counts.
        """
        logits, caches = bind(self._model, parameters).begin(prompt, request.lengths, slots)
        return _draw(_undrawn(request.lengths, caches, slots), logits, request, config)

    def _read_on_program(
        self,
        parameters: Tree,
        state: DecodeState,
        tokens: Int[Array, "batch sequence"],
        start: Int[Array, ""],
        request: Request,
        *,
        config: SamplingConfig,
    ) -> DecodeState:
        """Read the prompts' tokens from `start` on, and draw the first token of the rows that have any."""
        lengths, slots = state.lengths, state.drawn.shape[1]
        offset = jnp.minimum(start, lengths)
        logits, caches = bind(self._model, parameters).read_on(tokens, state.caches, offset, lengths)
        new = _draw(_undrawn(lengths, caches, slots), logits, request, config)
        has_any = offset < lengths
        return dataclasses.replace(
            new,
            last=jnp.where(has_any, new.last, state.last),
            ended=jnp.where(has_any, new.ended, state.ended),
            counts=jnp.where(has_any, new.counts, state.counts),
            drawn=jnp.where(has_any[:, None], new.drawn, state.drawn),
        )

    def _decode_program(
        self,
        parameters: Tree,
        state: DecodeState,
        limit: Int[Array, ""],
        request: Request,
        *,
        config: SamplingConfig,
    ) -> DecodeState:
        """Draw tokens until there are `limit`, or all rows have ended."""
        model = bind(self._model, parameters)

        def unfinished(state: DecodeState) -> Bool[Array, ""]:
            return (state.step < limit) & ~jnp.all(state.ended)

        def step(state: DecodeState) -> DecodeState:
            logits, caches = model.next(state.last[:, None], state.caches, state.lengths)
            # An ended row stays where it is, and its slots within the caches.
            lengths = state.lengths + ~state.ended
            state = dataclasses.replace(state, lengths=lengths, caches=caches)
            return _draw(state, logits[:, 0], request, config)

        return jax.lax.while_loop(unfinished, step, state)

    def _read(self, state: DecodeState, texts: list[list[int]], on_tokens: OnTokens | None) -> bool:
        """Bring the new tokens to the host; whether all rows have ended."""
        counts, drawn, ended = jax.device_get((state.counts, state.drawn, state.ended))
        new = [drawn[row, len(text) : counts[row]].tolist() for row, text in enumerate(texts)]
        for text, more in zip(texts, new, strict=True):
            text.extend(more)
        if on_tokens is not None and any(new):
            on_tokens(new)
        return bool(ended.all())


def generate(
    model: Generates,
    parameters: Tree,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    **options: Any,
) -> list[list[int]]:
    """`Generator(...)(prompts, config, **options)` for a single use; make a `Generator` for several."""
    return Generator(model, parameters)(prompts, config, **options)


def _static(config: SamplingConfig) -> SamplingConfig:
    """What programs depend on."""
    others = {"max_new_tokens": 1, "seed": 0, "prefill_chunk": 1, "start_token": None, "length_penalty": 1.0}
    return dataclasses.replace(config, **others)


def _undrawn(lengths: Int[Array, " batch"], caches: Any, slots: int) -> DecodeState:
    """The state before any token is drawn; a row without a prompt has ended."""
    batch = lengths.shape[0]
    return DecodeState(
        step=jnp.zeros((), jnp.int32),
        last=jnp.zeros((batch,), jnp.int32),
        lengths=lengths,
        ended=lengths == 0,
        counts=jnp.zeros((batch,), jnp.int32),
        drawn=jnp.zeros((batch, slots), jnp.int32),
        caches=caches,
    )


def _draw(
    state: DecodeState,
    logits: Float[Array, "batch vocab"],
    request: Request,
    config: SamplingConfig,
) -> DecodeState:
    """The state with one more token in every row that has not ended."""
    keys = row_keys(request.seed, request.row_seeds, state.lengths)
    standing = Texts(request.rows, request.lengths, state.drawn, state.step)
    logits = constrained(shard(logits, "batch", None), standing, request.limit, config)
    tokens = sample(logits, keys, config)
    stops = jnp.isin(tokens, jnp.array(config.stop_tokens, jnp.int32))
    ended = state.ended | stops
    drawn = jax.lax.dynamic_update_slice_in_dim(state.drawn, tokens[:, None], state.step, 1)
    return dataclasses.replace(
        state,
        step=state.step + 1,
        last=tokens,
        ended=ended,
        counts=state.counts + ~ended,
        drawn=drawn,
    )
