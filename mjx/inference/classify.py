"""Texts told by a classifier: their classes, or a number of each."""

import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mjx.data.pairs.surrounded import Surrounding
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError
from mjx.inference.rows import mesh_multiples, padded, row_batches
from mjx.models.common.parameter import bind
from mjx.models.family import Classifies
from mjx.sharding import Rules, shard, use_mesh
from mjx.trees import Tree


class Classifier:
    """A model, compiled for batches of texts of like length.

    Args:
        model: the definition of a model that `Classifies`.
        parameters: its weights, laid out over the mesh.
        around: what stands around texts.
        longest: tokens of a row; what is longer is cut.
        token_types: whether the model is told which of two texts a token is of.
        height: rows of a batch.
    """

    def __init__(
        self,
        model: Classifies,
        parameters: Tree,
        *,
        mesh: Mesh,
        rules: Rules,
        around: Surrounding,
        longest: int,
        token_types: bool,
        height: int = 64,
    ):
        self.model, self.parameters, self.mesh, self.rules = model, parameters, mesh, rules
        self.around, self.longest, self.token_types, self.height = around, longest, token_types, height
        self._program = jax.jit(self._told)

    def _told(self, parameters: Tree, batch: dict[str, Any]) -> Float[jax.Array, "batch classes"]:
        logits = bind(self.model, parameters).classified(batch)
        told = jax.nn.softmax(logits) if self.model.class_names else logits
        return shard(told, None, None)

    def __call__(
        self, tokenizer: Tokenizer, rows: Sequence[Sequence[str]]
    ) -> Float[np.ndarray, "rows classes"]:
        """The probabilities of each row's classes, in the order of `class_names`, or its number. Rows have
        one text, or all of them two.

        Raises:
            InputError: the tokenizer makes no token of a text.
        """
        if not rows:
            return np.zeros((0, max(1, len(self.model.class_names))), np.float32)
        texts = len(rows[0])
        encoded = tokenizer.encode_batch([text for row in rows for text in row])
        for number, tokens in enumerate(encoded):
            if not tokens:
                text = rows[number // texts][number % texts]
                raise InputError(f"text {number // texts + 1}: the tokenizer makes no token of {text!r}")
        whole = np.array([len(tokens) for tokens in encoded], np.int64).reshape(-1, texts)
        kept = self.around.kept(whole, self.longest)
        if cut := int((kept < whole).any(axis=1).sum()):
            logging.getLogger("mjx").warning(
                "%d of %d rows have more than %d tokens, and are cut", cut, len(rows), self.longest
            )
        lengths = kept.sum(axis=1) + self.around.special(texts)
        multiples = mesh_multiples(self.mesh, self.rules)
        found: np.ndarray | None = None
        with use_mesh(self.mesh, self.rules):
            for some, height, width in row_batches(
                lengths.tolist(), min(self.height, len(rows)), multiples=multiples, longest=self.longest
            ):
                parts = [
                    encoded[texts * row + text][: kept[row, text]] for row in some for text in range(texts)
                ]
                arrays = self.around.rows(np.concatenate(parts), kept[some], width)
                names = ("tokens", "segment_ids", *(("token_types",) if self.token_types else ()))
                batch = padded({name: arrays[name] for name in names}, height)
                told = self._program(self.parameters, {k: jnp.asarray(v) for k, v in batch.items()})
                told = np.asarray(told.addressable_data(0))[: len(some)]
                found = np.zeros((len(rows), told.shape[1]), np.float32) if found is None else found
                found[some] = told
        assert found is not None
        return found
