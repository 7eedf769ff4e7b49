"""What an optimizer keeps of each parameter, seen in the shapes of its state."""

import jax
from flax import nnx

from mjx.models.common.parameter import logical_axes_of, parameters_of
from mjx.training.groups import trained_of
from mjx.training.optimizer import OptimizerConfig, build_optimizer, like_params
from mjx.training.schedule import ScheduleConfig, build_schedule
from mjx.trees import flatten, split, unflatten


def moments_of(config: OptimizerConfig, model: nnx.Module) -> dict[str, tuple[jax.ShapeDtypeStruct, ...]]:
    """Parameter → its moments, none of those that are frozen; of a model with or without arrays."""
    everything = parameters_of(model)
    trained = trained_of(model, config.groups)
    (shapes, _), (axes, _) = split(everything, trained), split(logical_axes_of(model), trained)
    optimizer = build_optimizer(config, build_schedule(ScheduleConfig(), 1), axes)  # has no moments
    state = jax.eval_shape(optimizer.init, shapes)
    names = {name: name for name in flatten(shapes)}
    owners = like_params(state, shapes, unflatten(names), "")
    found: dict[str, list[jax.ShapeDtypeStruct]] = {name: [] for name in flatten(everything)}
    for owner, leaf in zip(jax.tree.leaves(owners), jax.tree.leaves(state), strict=True):
        if owner:  # no counter
            found[owner].append(leaf)
    return {name: tuple(leaves) for name, leaves in found.items()}
