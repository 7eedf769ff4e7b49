"""Rows, whatever is in them, through a compiled program; and a classifier of them as one."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mjx.inference.placement import Placement
from mjx.models.common.parameter import bind
from mjx.models.family import Classifies
from mjx.sharding import Rules
from mjx.trees import Tree


class RowProgram:
    """What a model says of each row of a batch; compiled per shape of a batch, once.

    Args:
        said: of the model and a batch: numbers of each row.
        model: its definition.
        parameters: its weights, laid out over the mesh.
    """

    def __init__(
        self,
        said: Callable[[Any, dict[str, Any]], Float[Array, "batch features"]],
        model: Any,
        parameters: Tree,
        *,
        mesh: Mesh,
        rules: Rules,
    ):
        self.placement = Placement(mesh, rules)
        self._parameters = self.placement.lay_out(model, parameters)
        self._program = jax.jit(
            lambda parameters, batch: said(bind(model, parameters), batch),
            out_shardings=self.placement.everywhere,
        )

    def __call__(self, arrays: Mapping[str, np.ndarray], height: int) -> Float[np.ndarray, "rows features"]:
        """What is said of rows, which are filled up to so many for the program."""
        rows = len(next(iter(arrays.values())))

        def filled(array: np.ndarray) -> np.ndarray:
            return np.pad(array, ((0, height - rows), *[(0, 0)] * (array.ndim - 1)))

        with self.placement.in_force():
            batch = self.placement.put({name: filled(array) for name, array in arrays.items()})
            return np.asarray(self._program(self._parameters, batch))[:rows]

    def by(self, rows: int) -> int:
        """So many rows, or as many more as the mesh can divide."""
        shards = self.placement.batch_shards
        return -(-rows // shards) * shards


class ClassProgram(RowProgram):
    """The probabilities of each row's classes, in the order of `class_names`, or its number.

    Args:
        model: the definition of a model that `Classifies`.
        parameters: its weights, laid out over the mesh.
    """

    def __init__(self, model: Classifies, parameters: Tree, *, mesh: Mesh, rules: Rules):
        super().__init__(_told, model, parameters, mesh=mesh, rules=rules)
        self.model = model

    @property
    def features(self) -> int:
        """Of what is told of a row."""
        return max(1, len(self.model.class_names))


def _told(model: Classifies, batch: dict[str, Any]) -> Float[Array, "batch classes"]:
    logits = model.classified(batch)
    return jax.nn.softmax(logits) if model.class_names else logits
