"""Rows of tokens → embeddings, with one encoder."""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from mjx.errors import InputError
from mjx.inference.embedding.pooling import check_pooling, pool
from mjx.inference.placement import Placement
from mjx.inference.rows import RowBatch, batch_tokens_here, row_batches
from mjx.models.common.parameter import bind
from mjx.models.family import Embeds
from mjx.models.huggingface.sentence_modules import ACTIVATIONS, Dense
from mjx.sharding import Rules, relayout
from mjx.trees import Tree

_IN_FLIGHT = 2
"""Batches that are computed while the host prepares the next."""


class Embedder:
    """Makes one vector of each row of tokens. Programs are compiled per shape of a batch, once."""

    def __init__(
        self,
        model: Embeds,
        parameters: Tree,
        *,
        pooling: str | Sequence[str] | None = None,
        dense: Sequence[Dense] = (),
        normalize: bool = False,
        mesh: Mesh | None = None,
        rules: Rules | None = None,
        batch_tokens: int | None = None,
    ):
        """Args:
            model: May be abstract (shapes in place of arrays); only `parameters` are computed with.
            parameters: Of the model.
            pooling: How a row's states become one vector (`POOLING`, or "pooler"); several are joined. None:
                the mean, or what the model's embeddings are.
            dense: Layers on what is pooled.
            normalize: Make the vectors of length 1.
            mesh: Whose devices share the rows of a batch; None: the one in force, if any.
            rules: Without the rows of the token axes, which are left out: rows are split, and not texts.
            batch_tokens: Of a batch, padding included; None: what suits the device.

        Raises:
            InputError: the model has not what a way of pooling reads, or the layers do not fit it.
        """
        if pooling is None:
            pooling = "pooler" if model.is_pooled else "mean"
        self._modes = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        check_pooling(self._modes, model)
        if batch_tokens is not None and batch_tokens < 1:
            raise InputError(f"batch_tokens = {batch_tokens} must be positive")
        self._batch_tokens = batch_tokens
        self._model, self._normalize, self._dense = model, normalize, tuple(dense)
        self._placement = Placement(mesh, rules)
        self._parameters = self._placement.lay_out(model, parameters)
        self._layers = self._placement.put([layer.weights for layer in self._dense])
        self._program = jax.jit(self._embed, out_shardings=self._placement.everywhere)
        self.features = self._features()
        """Of an embedding."""

    @property
    def max_positions(self) -> int | None:
        """Tokens that a row may have; None where positions have no end."""
        return self._model.max_positions

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self._model.vocab_size

    def __call__(
        self, rows: Sequence[Sequence[int]], on_rows: Callable[[int], None] | None = None
    ) -> Float[np.ndarray, "rows features"]:
        """The embeddings of rows of token ids, in their order, in float32.

        A row's embedding does not depend on the others, up to rounding. `on_rows` hears how many rows more
        are done. Every process of a run calls this with the same rows.

        Raises:
            InputError: a row is empty, has an unknown id, or is too long for the model's positions.
        """
        self._check(rows)
        found = np.empty((len(rows), self.features), np.float32)
        for members, embeddings in self._computed(rows):
            found[members] = np.asarray(embeddings)[: len(members)]
            if on_rows is not None:
                on_rows(len(members))
        return found

    def _computed(self, rows: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Array]]:
        placement, model = self._placement, self._model
        waiting: collections.deque[tuple[list[int], Array]] = collections.deque()
        with placement.in_force():
            batches = row_batches(
                list(map(len, rows)),
                self._batch_tokens or batch_tokens_here(),
                widest=model.max_positions,
                multiple=placement.batch_shards,
            )
            for batch in batches:
                waiting.append((batch.members, self._start(rows, batch)))
                if len(waiting) > _IN_FLIGHT:
                    yield waiting.popleft()
            yield from waiting

    def _start(self, rows: Sequence[Sequence[int]], batch: RowBatch) -> Array:
        tokens, lengths = np.zeros((batch.rows, batch.width), np.int32), np.zeros(batch.rows, np.int32)
        for place, member in enumerate(batch.members):
            lengths[place] = length = len(rows[member])
            tokens[place, :length] = rows[member]
        return self._program(self._parameters, self._layers, *self._placement.put((tokens, lengths)))

    def _embed(
        self,
        parameters: Tree,
        layers: list[dict[str, Array]],
        tokens: Int[Array, "batch sequence"],
        lengths: Int[Array, " batch"],
    ) -> Float[Array, "batch features"]:
        model = bind(self._model, parameters)
        # A row that only fills the batch has one token, so that no softmax is over nothing.
        lengths = jnp.maximum(lengths, 1)
        real = jnp.arange(tokens.shape[1]) < lengths[:, None]
        batch = {"tokens": tokens, "segment_ids": real.astype(jnp.int32)}
        states = model.encoded(batch)
        states: Any = relayout(
            states, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed")
        )
        x = jnp.concatenate([pool(mode, model, states, batch) for mode in self._modes], axis=1)
        for layer, weights in zip(self._dense, layers, strict=True):
            y = x @ weights["kernel"]
            x = ACTIVATIONS[layer.activation](y + weights["bias"] if "bias" in weights else y)
        if self._normalize:
            x = x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return x

    def _features(self) -> int:
        """Of what the program makes, which is traced for it."""
        width = self._model.max_positions
        tokens = jax.ShapeDtypeStruct((self._placement.batch_shards, min(8, width or 8)), jnp.int32)
        with self._placement.in_force():
            pooled = self._width_of(tokens)
        for number, layer in enumerate(self._dense):
            features = layer.weights["kernel"].shape[0]
            if pooled != features:
                raise InputError(
                    f"the dense layer {number} takes {features} features, and gets {pooled} of pooling = "
                    f"{', '.join(self._modes)}"
                )
            pooled = layer.weights["kernel"].shape[1]
        return pooled

    def _width_of(self, tokens: Any) -> int:
        def pooled(parameters: Tree, tokens: Array) -> Array:
            model, batch = bind(self._model, parameters), {"tokens": tokens, "segment_ids": tokens}
            states = model.encoded(batch)
            return jnp.concatenate([pool(mode, model, states, batch) for mode in self._modes], axis=1)

        return jax.eval_shape(pooled, self._parameters, tokens).shape[1]

    def _check(self, rows: Sequence[Sequence[int]]) -> None:
        longest, ids = self.max_positions, self.vocab_size
        for number, row in enumerate(rows):
            if not len(row):
                raise InputError(f"row {number} is empty; it needs at least one token")
            if longest is not None and len(row) > longest:
                raise InputError(
                    f"row {number} has {len(row)} tokens, but the model has only {longest} learned "
                    "positions; shorten it"
                )
            if not 0 <= min(row) <= max(row) < ids:
                raise InputError(
                    f"row {number} has the token ids {min(row)} to {max(row)}; the model's are 0 to {ids - 1}"
                )
