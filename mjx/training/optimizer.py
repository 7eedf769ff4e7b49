"""Optimizers: AdamW, SGD, Lion and Muon, with clipping and guarded updates."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.training.groups import GroupConfig, group_of_each
from mjx.training.muon import MuonConfig, scale_by_muon
from mjx.training.non_finite import NonFinitePolicy, update_if
from mjx.training.parameter_kinds import match_axes, parameter_kind
from mjx.training.schedule import Schedule
from mjx.trees import flatten, unflatten


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The update rule. The learning rate is the schedule's."""

    name: Literal["adamw", "sgd", "lion", "muon"] = "adamw"
    """`muon` updates the hidden matrices by Muon and everything else by AdamW."""
    beta1: float = 0.9
    """AdamW and Lion: decay of the mean of gradients. Lion uses it for the update only."""
    beta2: float = 0.95
    """AdamW: decay of the mean of squared gradients. Lion: decay of its momentum (the paper: 0.99)."""
    eps: float = 1e-8
    """AdamW: added to the root of the second moment, outside of the root."""
    weight_decay: float = 0.1
    """Applied to matrices and tables, never to norms and biases. Decoupled and multiplied by the learning
    rate; for `sgd`, added to the gradient instead, as PyTorch does."""
    clip_norm: float | None = 1.0
    """Gradients whose global norm is larger are scaled down to it. Unset: no clipping."""
    momentum: float = 0.9
    """SGD's momentum (a sum, not a mean: v = momentum · v + gradient)."""
    nesterov: bool = False
    """SGD: look one step ahead."""
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    """Storage of the momentum. The second moment is always float32."""
    muon: MuonConfig = dataclasses.field(default_factory=MuonConfig)
    """Muon's own options."""
    groups: dict[str, GroupConfig] = dataclasses.field(default_factory=dict)
    """Pattern of parameter paths → what is special of them, e.g. `{"embedding.*": {frozen: true}}`; `mjx
    explain` lists the paths. The first pattern that matches counts."""
    non_finite: NonFinitePolicy = "stop"
    """When the loss or the gradient norm is not finite: `stop` training, or `skip` the update."""
    skip_limit: int = 10
    """`skip`: so many updates skipped in a row stop training all the same. Meanwhile no checkpoint is made,
    and none is deleted."""

    def __hash__(self) -> int:
        return hash((self.name, self.moment_dtype, self.muon, tuple(self.groups.items())))

    def __post_init__(self):
        for name in ("beta1", "beta2", "momentum"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise InputError(f"{name} = {value} must be at least 0 and below 1")
            if np.float32(value) == 1:  # AdamW divides by 1 - beta
                raise InputError(f"{name} = {value} is 1 in float32: it must be at most 0.9999999")
        check_scale("eps", self.eps)
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay = {self.weight_decay} must be 0 or more")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"clip_norm = {self.clip_norm} must be above 0 (unset: no clipping)")
        if self.skip_limit < 1:
            raise InputError(f"skip_limit = {self.skip_limit} must be at least 1")
        if self.nesterov and self.momentum == 0:
            raise InputError("nesterov = True needs momentum above 0")


def build_optimizer(
    config: OptimizerConfig, schedule: Schedule, axes: PyTree
) -> optax.GradientTransformation:
    """The update rule, without clipping: that is in `apply_gradients`, which knows the norm.

    Computes in float32 and keeps float32 state whatever the dtype of the parameters. The state is a
    tuple (direction, decay, learning rate's count), to be read through `updates_applied` and laid
    out by `like_params`.

    `axes` is the trained parameters' tree with a tuple of logical axis names at each leaf; the kinds that
    follow from them (`parameter_kinds`) say what is decayed and what Muon updates.

    Raises:
        InputError: a pattern of `config.groups` matches no parameter.
    """
    moment_dtype = jnp.dtype(config.moment_dtype)
    # What is frozen is not among the axes any more, nor is what its patterns match.
    special = {pattern: group for pattern, group in config.groups.items() if not group.frozen}
    groups = group_of_each(special, flatten(axes)) if special else {}
    decay = _decay(config.weight_decay, axes, groups)
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.eps, mu_dtype=moment_dtype)
    if config.name == "sgd":
        trace = optax.trace(config.momentum, config.nesterov, moment_dtype)
        direction = (optax.chain(decay, trace),)
    elif config.name == "lion":
        direction = (optax.scale_by_lion(config.beta1, config.beta2, moment_dtype), decay)
    elif config.name == "muon":
        others = optax.masked(adam, lambda params: _where_kind(params, axes, ("table", "vector")))
        hidden = scale_by_muon(config.muon, axes, moment_dtype=moment_dtype)
        direction = (optax.chain(hidden, others), decay)
    else:
        direction = (adam, decay)
    update = _in_float32(optax.chain(*direction, optax.scale_by_learning_rate(cast(Any, schedule))))
    return _at_rates(update, groups)


def apply_gradients(
    optimizer: optax.GradientTransformation,
    config: OptimizerConfig,
    schedule: Schedule,
    *,
    loss: Float[Array, ""],
    grads: PyTree,
    state: PyTree,
    params: PyTree,
) -> tuple[PyTree, PyTree, dict[str, Float[Array, ""]]]:
    """One guarded update: norm, clip, optimizer, and nothing of it if the loss or the norm is not finite.

    A skipped update leaves the optimizer's state and therefore the schedule where they were.

    Returns:
        The parameters, the optimizer's state, and `grad_norm` (before clipping), `learning_rate` and
        `update_skipped` (0 or 1) for the metrics.
    """
    norm = global_norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    metrics = {
        "grad_norm": norm,
        "learning_rate": schedule(updates_applied(state)),
        "update_skipped": 1.0 - finite.astype(jnp.float32),
    }

    def update(params, state):
        updates, state = optimizer.update(scale_to_norm(grads, norm, config.clip_norm), state, params)
        new_params: Any = optax.apply_updates(params, updates)
        return new_params, state

    params, state = update_if(finite, update, params, state)
    return params, state, metrics


def scale_to_norm(grads: PyTree, norm: Float[Array, ""], max_norm: float | None) -> PyTree:
    """Gradients of the given global norm, scaled down in float32 to `max_norm` as Megatron does."""
    if max_norm is None:
        return grads
    scale = jnp.minimum(1.0, max_norm / (norm + 1e-6))
    return jax.tree.map(lambda g: g.astype(jnp.float32) * scale, grads)


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of all numbers of a tree, in float32."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, start=jnp.zeros((), jnp.float32)))


def updates_applied(state: Any) -> Int[Array, ""]:
    """How many updates an optimizer state of `build_optimizer` has seen: the schedule's clock."""
    return state[-1].count


def like_params(state: PyTree, params: PyTree, values: PyTree, other: Any) -> PyTree:
    """A tree of the optimizer state's structure: at each moment its parameter's value, `other` elsewhere.

    `values` is the parameters' tree with anything at its leaves, shardings above all:
    `like_params(jax.eval_shape(optimizer.init, params), params, shardings, replicated)`.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(params)
    by_path: Mapping[Any, tuple[Any, Any]] = {
        path: (array.shape, value)
        for (path, array), value in zip(paths, treedef.flatten_up_to(values), strict=True)
    }

    def find(path, leaf):
        for start in range(len(path)):  # a moment's path is its place in the state, then the parameter's path
            shape, value = by_path.get(path[start:], (None, None))
            if shape == leaf.shape:
                return value
        return other

    return jax.tree_util.tree_map_with_path(find, state)


def _decay(
    weight_decay: float, axes: PyTree, groups: Mapping[str, GroupConfig]
) -> optax.GradientTransformation:
    """Adds the decay of each parameter: by its kind, or by its group's own factor."""
    factors = {}
    for path, names in flatten(axes).items():
        factor = groups[path].decay if path in groups else None
        factors[path] = (parameter_kind(names) != "vector") * 1.0 if factor is None else factor

    def update(updates, state, params=None):
        def decayed(update: Array, parameter: Array, factor: float) -> Array:
            return update + (factor * weight_decay) * parameter if factor else update

        return jax.tree.map(decayed, updates, params, unflatten(dict(factors))), state

    # The state is that of optax.masked(optax.add_decayed_weights(…)), as checkpoints have it.
    return optax.GradientTransformation(lambda params: optax.MaskedState(optax.EmptyState()), update)


def _at_rates(
    inner: optax.GradientTransformation, groups: Mapping[str, GroupConfig]
) -> optax.GradientTransformation:
    """Updates by the groups' factors on the learning rate."""
    if all(group.rate == 1 for group in groups.values()):
        return inner

    def update(updates, state, params=None):
        updates, state = inner.update(updates, state, params)
        rates = unflatten({path: group.rate for path, group in groups.items()})
        return jax.tree.map(lambda update, rate: rate * update, updates, rates), state

    return optax.GradientTransformation(inner.init, update)


def _where_kind(params: PyTree, axes: PyTree, kinds: tuple[str, ...]) -> PyTree:
    mask = [parameter_kind(names) in kinds for names in match_axes(params, axes)]
    return jax.tree.unflatten(jax.tree.structure(params), mask)


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Float32 state and arithmetic for parameters of any dtype: a bfloat16 mean would stand still."""

    def init(params):
        return inner.init(optax.tree.cast(params, jnp.float32))

    def update(updates, state, params=None):
        params = None if params is None else optax.tree.cast(params, jnp.float32)
        return inner.update(optax.tree.cast(updates, jnp.float32), state, params)

    return optax.GradientTransformation(init, update)
