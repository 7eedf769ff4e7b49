"""RETRO: a decoder, an encoder of neighbours, and the places where the one looks at the other."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.common.context import Context, Decoding, Memory
from mjx.models.common.pattern import CacheSizes
from mjx.models.common.stack import Caches, Run, Stack
from mjx.models.common.stacked_model import run_stack
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.common.token_model.language_model import LanguageModel
from mjx.models.common.token_model.model import inputs_of
from mjx.models.family import Batch, Counts
from mjx.models.report import Report
from mjx.models.retro.chunked_attention import chunked, chunks_of, segments_of
from mjx.models.retro.config import RetroConfig
from mjx.sharding import relayout, shard
from mjx.trees import Tree


class RetroCaches(NamedTuple):
    """What is kept of a text."""

    front: Caches
    rest: Caches
    """Of the layers from the first look on, which keep the memory of the last whole chunk, too."""
    read: Float[Array, "batch length embed"]
    """What the first look has read of the chunk that is not whole yet."""
    retrieved: Int[Array, "batch chunks neighbours retrieved"]
    """Of every chunk, -1 where nothing is known (`Retro.told`)."""


class Retro(LanguageModel):
    """Embedding; the layers in front of the first look; the encoder; the others; head."""

    def __init__(self, config: RetroConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)

        def stack(name: str, output_std: float) -> Stack:
            return Stack(
                config.patterns[name],
                config.hidden_size,
                remat=config.remat,
                std=config.init_std,
                output_std=output_std,
                rngs=rngs,
            )

        self.front = stack("front", config.output_std)
        self.encoder = stack("encoder", config.encoder_output_std)
        self.config: RetroConfig = config

    def __call__(  # type: ignore[override]
        self,
        tokens: Int[Array, "batch sequence"],
        retrieved: Int[Array, "batch chunks neighbours retrieved"] | None = None,
        *,
        positions: Int[Array, "batch sequence"] | None = None,
    ) -> Float[Array, "batch sequence vocab"]:
        """Logits of the next token, in float32; -1 stands where nothing was retrieved."""
        inputs = self.looking(Inputs(tokens, positions), retrieved)
        return self.logits(self.hidden_states(inputs))

    def looking(
        self,
        inputs: Inputs,
        retrieved: Int[Array, "batch chunks neighbours retrieved"] | None,
        key: Key[Array, ""] | None = None,
    ) -> Inputs:
        """With neighbours as they enter the encoder: the memory of the row, chunk by chunk."""
        if retrieved is None:
            return inputs
        batch, length = retrieved.shape[0], retrieved.shape[3]
        rows = retrieved.reshape(-1, length)
        x, _ = self.enter(Inputs(jnp.maximum(rows, 0), training=inputs.training), key)
        x = relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        states = x.reshape(batch, -1, x.shape[-1])
        return inputs._replace(memory=Memory(states, segments_of(retrieved).reshape(batch, -1)))

    def loss(
        self,
        batch: Batch,
        counts: Counts,
        *,
        key: Key[Array, ""] | None = None,
        so_far: Tree | None = None,
        training: bool = True,
    ) -> tuple[Float[Array, ""], Report]:
        """Cross-entropy, of tokens that have looked at what `retrieved` has for their chunks; without it, of
        the plain language model."""
        own, other = (None, None) if key is None else jax.random.split(key)
        inputs = self.looking(inputs_of(batch, training=training), batch.get("retrieved"), other)
        return self.loss_of(inputs, batch, counts, key=own, so_far=so_far)

    def run(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        caches: Any = None,
        so_far: Tree | None = None,
    ) -> Run:
        """All stacks; `context.memory` is what was retrieved, as it enters the encoder, or the caches have
        it."""
        keys = (None,) * 3 if context.dropout_key is None else jax.random.split(context.dropout_key, 3)
        of_front, of_encoder, of_rest = (dataclasses.replace(context, dropout_key=key) for key in keys)
        of_front = dataclasses.replace(of_front, memory=None)
        in_front, in_rest = (None, None) if caches is None else (caches.front, caches.rest)
        front = run_stack(self.front, "front", x, of_front, in_front, so_far)
        runs, read = [front], None
        if caches is not None:
            assert context.decoding is not None
            memory, read = self._looked_up(front.x, caches, context.decoding)
            of_rest = dataclasses.replace(of_rest, memory=memory)
        elif context.memory is not None:
            of_chunks = chunked(self._read(front.x), self.config.chunk_length)
            runs.append(self._encoded(of_chunks, context.memory, of_encoder, so_far))
            states = runs[-1].x.reshape(context.memory.states.shape)
            of_rest = dataclasses.replace(of_rest, memory=Memory(states, context.memory.segment_ids))
        runs.append(run_stack(self.stack, self.config.stack_name, front.x, of_rest, in_rest, so_far))
        losses: dict[str, Float[Array, ""]] = {}
        statistics: dict[str, Any] = {}
        for run in runs:
            statistics |= run.statistics
            losses |= {name: losses.get(name, 0.0) + value for name, value in run.losses.items()}
        if caches is not None:
            caches = caches._replace(front=front.caches, rest=runs[-1].caches, read=read)
        return Run(runs[-1].x, caches, losses, statistics)

    def _read(self, x: Float[Array, "batch residual_sequence embed"]) -> Float[Array, "batch sequence embed"]:
        """What the first look reads of the residual stream, and the encoder of chunks."""
        x = self.stack.first_read(x)
        return relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))

    def _encoded(
        self,
        of_chunks: Float[Array, "chunks_of_batch length embed"],
        retrieved: Memory,
        context: Context,
        so_far: Tree | None = None,
    ) -> Run:
        """Neighbours that have looked at their chunks, each a row."""
        assert retrieved.segment_ids is not None
        batch, memory, embed = retrieved.states.shape
        rows = memory // self.config.retrieved_length * batch
        neighbours = rows // of_chunks.shape[0]
        tokens = shard(retrieved.states.reshape(rows, -1, embed), "batch", "residual_sequence", "embed")
        inner = dataclasses.replace(
            context,
            positions=None,
            segment_ids=retrieved.segment_ids.reshape(rows, -1),
            memory=Memory(jnp.repeat(of_chunks, neighbours, axis=0)),
            counted=None,
        )
        return run_stack(self.encoder, "encoder", tokens, inner, None, so_far)

    def _looked_up(
        self, x: Float[Array, "batch residual_sequence embed"], caches: RetroCaches, decoding: Decoding
    ) -> tuple[Memory, Float[Array, "batch length embed"]]:
        """The memory of the chunks that tokens may end that follow what the caches hold, and what was read of
        the chunk that they leave unfinished."""
        length, (batch, new) = self.config.chunk_length, x.shape[:2]
        before, within = decoding.offset // length, decoding.offset % length
        # The unfinished chunk's tokens, and behind them the new ones.
        places = jnp.arange(length + new)
        at = jnp.where(places < within[:, None], places, length + places - within[:, None])
        both = jnp.concatenate([caches.read, self._read(x).astype(caches.read.dtype)], axis=1)
        read = jnp.take_along_axis(both, jnp.minimum(at, length + new - 1)[..., None], axis=1)
        chunks = new // length + 1
        of_chunks = jnp.pad(read, ((0, 0), (0, max(chunks * length - length - new, 0)), (0, 0)))
        of_chunks = of_chunks[:, : chunks * length].reshape(batch * chunks, length, -1)
        numbers = jnp.minimum(before[:, None] + jnp.arange(chunks), caches.retrieved.shape[1] - 1)
        tokens = jnp.take_along_axis(caches.retrieved, numbers[..., None, None], axis=1)
        ended = (decoding.offset + decoding.lengths) // length > before

        def encoded() -> Float[Array, "batch memory embed"]:
            memory = self.looking(Inputs(tokens[:, :, 0, 0]), tokens).memory
            assert memory is not None
            return self._encoded(of_chunks.astype(x.dtype), memory, Context()).x.reshape(memory.states.shape)

        shape = (batch, tokens[0].size, x.shape[-1])
        states = jax.lax.cond(jnp.any(ended), encoded, lambda: jnp.zeros(shape, x.dtype))
        last = ((decoding.offset + decoding.lengths) // length - before)[:, None] * length
        left = jnp.take_along_axis(
            read, jnp.minimum(last + jnp.arange(length), length + new - 1)[..., None], axis=1
        )
        return Memory(states, segments_of(tokens).reshape(batch, -1)), left

    def begin(
        self, prompt: Batch, lengths: Int[Array, " batch"], slots: int
    ) -> tuple[Float[Array, "batch vocab"], RetroCaches]:
        """Logits behind each row's prompt (`tokens`; `retrieved` for the chunks that it ends), and the
        caches with it."""
        tokens = prompt["tokens"]
        batch, width = tokens.shape
        caches = self.init_caches(CacheSizes(batch, slots))
        if "retrieved" in prompt:
            caches = self.told(caches, prompt["retrieved"], jnp.zeros((batch,), jnp.int32))
        real = jnp.minimum(lengths, width)
        decoding = Decoding(jnp.zeros((batch,), jnp.int32), real, lengths, prompt=True)
        return self._behind_prompts(Inputs(tokens, decoding=decoding), caches, real)

    def told(
        self,
        caches: RetroCaches,
        retrieved: Int[Array, "batch chunks neighbours retrieved"],
        first: Int[Array, " batch"],
    ) -> RetroCaches:
        """The caches with what was retrieved for some chunks of each row, from its number `first` on: before
        the token is given that ends the first of them."""

        def write(row: Array, new: Array, at: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(row, new, at, 0)

        room = caches.retrieved.shape[1]
        return caches._replace(retrieved=jax.vmap(write)(caches.retrieved, retrieved[:, :room], first))

    def init_caches(self, sizes: CacheSizes) -> RetroCaches:  # type: ignore[override]
        """Empty caches, in the compute dtype."""
        config, dtype = self.config, self.config.compute_dtype
        memory = config.neighbours * config.retrieved_length
        chunks = chunks_of(sizes.slots, config.chunk_length)
        shape = (sizes.batch, chunks, config.neighbours, config.retrieved_length)
        return RetroCaches(
            self.front.init_caches(sizes, dtype),
            self.stack.init_caches(sizes._replace(memory=memory), dtype),
            jnp.zeros((sizes.batch, config.chunk_length, config.hidden_size), dtype),
            jnp.full(shape, -1, jnp.int32),
        )

    def rows_of(self, caches: RetroCaches, rows: Int[Array, " chosen"]) -> RetroCaches:  # type: ignore[override]
        front, rest = (super(Retro, self).rows_of(part, rows) for part in (caches.front, caches.rest))
        read, retrieved = (jnp.take(part, rows, axis=0) for part in (caches.read, caches.retrieved))
        return RetroCaches(front, rest, read, retrieved)

    def unrolled(self) -> "Retro":
        model = super().unrolled()
        assert isinstance(model, Retro)
        model.front, model.encoder = self.front.unrolled(), self.encoder.unrolled()
        return model
