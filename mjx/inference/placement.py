"""Where arrays live in inference: parameters by the rule table, what the host gives and reads everywhere."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mjx.models.common.parameter import parameter_specs
from mjx.sharding import Rules, current_rules, use_mesh
from mjx.trees import Tree


class Placement:
    """A mesh and the rules of inference on it: those of a run, without those that split tokens."""

    def __init__(self, mesh: Mesh | None = None, rules: Rules | None = None):
        """Without `mesh`, the one in force is used, if any."""
        if mesh is None and not jax.sharding.get_mesh().empty:
            mesh = jax.sharding.get_mesh()
        self.mesh = mesh
        self.rules = (rules or current_rules()).without_tokens()

    @property
    def everywhere(self) -> NamedSharding | None:
        """On every device, so that every process can read it; None without a mesh."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch_shards(self) -> int:
        """What the number of rows must be a multiple of."""
        sizes = {} if self.mesh is None else dict(self.mesh.shape)
        return math.prod(sizes.get(axis, 1) for axis in self.rules.mesh_axes("batch"))

    def in_force(self) -> AbstractContextManager[Any]:
        """Where programs are called."""
        return use_mesh(self.mesh, self.rules) if self.mesh is not None else nullcontext()

    def put(self, arrays: Any) -> Any:
        """Small host arrays on every device."""
        return jax.device_put(arrays, self.everywhere)

    def lay_out(self, model: Any, parameters: Tree) -> Tree:
        """Parameters where the rule table wants them; those that are there already are not copied."""
        mesh = self.mesh
        if mesh is None:
            return parameters
        specs = parameter_specs(model, self.rules, dict(mesh.shape))
        return jax.tree.map(
            lambda array, spec: jax.device_put(array, NamedSharding(mesh, spec)), parameters, specs
        )
