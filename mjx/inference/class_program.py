"""A classifier of rows, whatever is in them, as compiled programs."""

from collections.abc import Mapping
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


class ClassProgram:
    """Tells the classes of batches; compiled per shape of a batch, once.

    Args:
        model: the definition of a model that `Classifies`.
        parameters: its weights, laid out over the mesh.
    """

    def __init__(self, model: Classifies, parameters: Tree, *, mesh: Mesh, rules: Rules):
        self.model, self.placement = model, Placement(mesh, rules)
        self._parameters = self.placement.lay_out(model, parameters)
        self._program = jax.jit(self._told, out_shardings=self.placement.everywhere)

    @property
    def features(self) -> int:
        """Of what is told of a row."""
        return max(1, len(self.model.class_names))

    def __call__(self, arrays: Mapping[str, np.ndarray], height: int) -> Float[np.ndarray, "rows classes"]:
        """The probabilities of each row's classes, in the order of `class_names`, or its number; of rows that
        are filled up to so many for the program."""
        rows = len(next(iter(arrays.values())))

        def filled(array: np.ndarray) -> np.ndarray:
            return np.pad(array, ((0, height - rows), *[(0, 0)] * (array.ndim - 1)))

        with self.placement.in_force():
            batch = self.placement.put({name: filled(array) for name, array in arrays.items()})
            return np.asarray(self._program(self._parameters, batch))[:rows]

    def _told(self, parameters: Tree, batch: dict[str, Any]) -> Float[jax.Array, "batch classes"]:
        logits = bind(self.model, parameters).classified(batch)
        return jax.nn.softmax(logits) if self.model.class_names else logits
