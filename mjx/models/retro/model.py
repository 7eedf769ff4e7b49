"""RETRO: a decoder, an encoder of neighbours, and the places where the one looks at the other."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.common.context import Context, Memory
from mjx.models.common.stack import Caches, Run, Stack
from mjx.models.common.stacked_model import run_stack
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.common.token_model.language_model import LanguageModel
from mjx.models.common.token_model.model import inputs_of
from mjx.models.family import Batch, Counts
from mjx.models.report import Report
from mjx.models.retro.chunked_attention import chunked, segments_of
from mjx.models.retro.config import RetroConfig
from mjx.sharding import relayout, shard
from mjx.trees import Tree


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
        caches: Caches | None = None,
        so_far: Tree | None = None,
    ) -> Run:
        """All stacks; `context.memory` is what was retrieved, as it enters the encoder."""
        keys = (None,) * 3 if context.dropout_key is None else jax.random.split(context.dropout_key, 3)
        of_front, of_encoder, of_rest = (dataclasses.replace(context, dropout_key=key) for key in keys)
        front = run_stack(self.front, "front", x, dataclasses.replace(of_front, memory=None), None, so_far)
        runs = [front]
        if context.memory is not None:
            read = self._encoded(front.x, context.memory, of_encoder, so_far)
            runs.append(read)
            states = read.x.reshape(context.memory.states.shape)
            of_rest = dataclasses.replace(of_rest, memory=Memory(states, context.memory.segment_ids))
        runs.append(run_stack(self.stack, self.config.stack_name, front.x, of_rest, caches, so_far))
        losses: dict[str, Float[Array, ""]] = {}
        statistics: dict[str, Any] = {}
        for run in runs:
            statistics |= run.statistics
            losses |= _added(losses, run.losses)
        return Run(runs[-1].x, runs[-1].caches, losses, statistics)

    def _encoded(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        retrieved: Memory,
        context: Context,
        so_far: Tree | None,
    ) -> Run:
        """Neighbours that have looked at their chunks, each a row."""
        x = self.stack.first_read(x)
        x = relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        of_chunks = chunked(x, self.config.chunk_length)
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


def _added(one: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, Array]:
    return {name: one.get(name, 0.0) + value for name, value in other.items()}
