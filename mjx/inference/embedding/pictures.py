"""Pictures → embeddings."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mjx.inference.class_program import RowProgram
from mjx.models.family import EmbedsPictures
from mjx.sharding import Rules
from mjx.trees import Tree


class PictureEmbedder:
    """A model that makes vectors of pictures, compiled for batches of pictures of one size.

    Args:
        model: its definition.
        parameters: its weights, laid out over the mesh.
        normalize: whether vectors are made of length 1.
        rows: pictures of a batch.
    """

    def __init__(
        self,
        model: EmbedsPictures,
        parameters: Tree,
        *,
        normalize: bool = False,
        mesh: Mesh,
        rules: Rules,
        rows: int = 16,
    ):
        def vectors(model: EmbedsPictures, batch: dict[str, Any]) -> Float[Array, "batch features"]:
            made = model.picture_vectors(batch["images"])
            if not normalize:
                return made
            return made / jax.numpy.maximum(jax.numpy.linalg.norm(made, axis=1, keepdims=True), 1e-12)

        self._program = RowProgram(vectors, model, parameters, mesh=mesh, rules=rules)
        self.rows = self._program.by(rows)

    def __call__(
        self,
        images: Sequence[Float[np.ndarray, "channels height width"]],
        on_rows: Callable[[int], None] | None = None,
    ) -> Float[np.ndarray, "pictures features"]:
        """Their embeddings, in their order, in float32; `on_rows` hears how many more are done."""
        found = []
        for start in range(0, len(images), self.rows):
            some = np.stack(images[start : start + self.rows])
            found.append(self._program({"images": some}, self.rows))
            if on_rows is not None:
                on_rows(len(some))
        return np.concatenate(found)
