"""Pictures told by a classifier: their classes, or a number of each."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mjx.inference.placement import Placement
from mjx.models.common.parameter import bind
from mjx.models.family import Classifies
from mjx.sharding import Rules
from mjx.trees import Tree


class PictureClassifier:
    """A model, compiled for batches of pictures of one size.

    Args:
        model: the definition of a model that `Classifies` `images`.
        parameters: its weights, laid out over the mesh.
        rows: pictures of a batch.
    """

    def __init__(self, model: Classifies, parameters: Tree, *, mesh: Mesh, rules: Rules, rows: int = 16):
        self.model, self._placement = model, Placement(mesh, rules)
        self._parameters = self._placement.lay_out(model, parameters)
        self.rows = -(-rows // self._placement.batch_shards) * self._placement.batch_shards
        self._program = jax.jit(self._told, out_shardings=self._placement.everywhere)

    def _told(self, parameters: Tree, batch: dict[str, Any]) -> Float[jax.Array, "batch classes"]:
        logits = bind(self.model, parameters).classified(batch)
        return jax.nn.softmax(logits) if self.model.class_names else logits

    def __call__(
        self, images: Sequence[Float[np.ndarray, "channels height width"]]
    ) -> Float[np.ndarray, "pictures classes"]:
        """The probabilities of each picture's classes, in the order of `class_names`, or its number."""
        found = np.zeros((len(images), max(1, len(self.model.class_names))), np.float32)
        with self._placement.in_force():
            for start in range(0, len(images), self.rows):
                some = np.stack(images[start : start + self.rows])
                behind = ((0, self.rows - len(some)), (0, 0), (0, 0), (0, 0))
                batch = self._placement.put({"images": np.pad(some, behind)})
                told = np.asarray(self._program(self._parameters, batch))
                found[start : start + len(some)] = told[: len(some)]
        return found
