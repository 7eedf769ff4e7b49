"""Pictures told by a classifier: their classes, or a number of each."""

from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from mjx.inference.class_program import ClassProgram
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
        self._program = ClassProgram(model, parameters, mesh=mesh, rules=rules)
        self.rows = self._program.by(rows)

    def __call__(
        self, images: Sequence[Float[np.ndarray, "channels height width"]]
    ) -> Float[np.ndarray, "pictures classes"]:
        """The probabilities of each picture's classes, in the order of `class_names`, or its number."""
        starts = range(0, len(images), self.rows)
        told = [
            self._program({"images": np.stack(images[start : start + self.rows])}, self.rows)
            for start in starts
        ]
        return np.concatenate([np.zeros((0, self._program.features), np.float32), *told])
