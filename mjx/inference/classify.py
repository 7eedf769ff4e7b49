"""Texts told by a classifier: their classes, or a number of each."""

import logging
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mjx.data.pairs.surrounded import Surrounding
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError
from mjx.inference.class_program import ClassProgram
from mjx.inference.rows import batch_tokens_here, row_batches
from mjx.models.family import Classifies
from mjx.sharding import Rules
from mjx.trees import Tree


class Classifier:
    """A model, compiled for batches of texts of like length.

    Args:
        model: the definition of a model that `Classifies`.
        parameters: its weights, laid out over the mesh.
        around: what stands around texts.
        longest: tokens of a row; what is longer is cut.
        token_types: whether the model is told which of two texts a token is of.
        batch_tokens: of a batch, padding included; None: what suits the device.
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
        batch_tokens: int | None = None,
    ):
        self.model = model
        self._program = ClassProgram(model, parameters, mesh=mesh, rules=rules)
        self.around, self.longest, self.token_types = around, longest, token_types
        self._batch_tokens = batch_tokens

    def __call__(
        self, tokenizer: Tokenizer, rows: Sequence[Sequence[str]]
    ) -> Float[np.ndarray, "rows classes"]:
        """The probabilities of each row's classes, in the order of `class_names`, or its number. Rows have
        one text, or all of them two.

        Raises:
            InputError: the tokenizer makes no token of a text.
        """
        if not rows:
            return np.zeros((0, self._program.features), np.float32)
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
        names = ("tokens", "segment_ids", *(("token_types",) if self.token_types else ()))
        found = np.zeros((len(rows), self._program.features), np.float32)
        with self._program.placement.in_force():
            batches = row_batches(
                lengths.tolist(),
                self._batch_tokens or batch_tokens_here(),
                widest=self.longest,
                multiple=self._program.placement.batch_shards,
            )
            for some, height, width in batches:
                parts = [
                    encoded[texts * row + text][: kept[row, text]] for row in some for text in range(texts)
                ]
                arrays = self.around.rows(np.concatenate(parts), kept[some], width)
                found[some] = self._program({name: arrays[name] for name in names}, height)
        return found
