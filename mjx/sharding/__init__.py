"""Axes, rules and meshes: what an array's dimensions mean, and where they live."""

from mjx.sharding.axes import LOGICAL_AXES, MESH_AXES
from mjx.sharding.constrain import (
    activation_spec,
    current_module,
    current_rules,
    inside,
    meant_mesh,
    mesh_shape,
    parameter_spec,
    relayout,
    shard,
    use_mesh,
)
from mjx.sharding.mesh import MeshConfig, build_mesh
from mjx.sharding.rules import Rule, Rules, ShardingConfig, axes_per_dimension, default_rules

__all__ = [
    "LOGICAL_AXES",
    "MESH_AXES",
    "MeshConfig",
    "Rule",
    "Rules",
    "ShardingConfig",
    "activation_spec",
    "axes_per_dimension",
    "build_mesh",
    "current_module",
    "current_rules",
    "default_rules",
    "inside",
    "meant_mesh",
    "mesh_shape",
    "parameter_spec",
    "relayout",
    "shard",
    "use_mesh",
]
