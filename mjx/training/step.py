"""The compiled steps: one optimizer update, and one evaluation batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mjx.models.common.parameter import bind, differentiated
from mjx.models.family import Batch, Counts, Metrics
from mjx.models.report import Loss, Report
from mjx.training.optimizer import OptimizerConfig, apply_gradients
from mjx.training.schedule import Schedule
from mjx.training.state import StateLayout, TrainState
from mjx.trees import Tree, join, split

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
Gradients = Callable[[Tree, Batch, Counts, jax.Array | None], tuple[Float[Array, ""], Report, Tree]]
"""(parameters, batch, its counts, key of all chance) → (loss, report, gradients of what is trained)."""


def build_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    config: OptimizerConfig,
    schedule: Schedule,
    *,
    layout: StateLayout | None = None,
    microbatches: int = 1,
    dropout_seed: int | None = None,
) -> TrainStep:
    """One update: `(state, batch) → (state, metrics)`, jitted; the state given is donated.

    Each loss is a sum over the whole batch divided by what the model counts in it, so microbatches and data
    parallelism do not change it.

    Args:
        model: the definition (`abstract_model`); its arrays are not used.
        optimizer: built from `config`; what it makes of the gradient is added to the parameters.
        config: what else the optimizer's config asks for: clipping, non-finite steps.
        schedule: of the learning rate that is reported.
        layout: where the state lives; None on one device, where all that a gradient can change is trained.
        microbatches: the batch is cut into this many parts, whose gradients are added up in a scan.
        dropout_seed: None switches dropout off.
    """
    trained = differentiated(model) if layout is None else layout.trained
    gradients_of = build_gradients(model, trained, microbatches)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        counts = {name: jnp.maximum(count, 1) for name, count in model.counts(batch).items()}
        key = None
        if dropout_seed is not None:
            key = jax.random.fold_in(jax.random.key(dropout_seed), state.step)
        loss, report, gradients = gradients_of(state.parameters, batch, counts, key)
        if layout is not None:
            gradients = jax.lax.with_sharding_constraint(gradients, layout.moments)
        old, others = split(state.parameters, trained)
        new, optimizer_state, update_metrics = apply_gradients(
            optimizer, config, schedule, loss=loss, grads=gradients, state=state.optimizer, params=old
        )
        parameters = _after_step(model, join(new, others), report, update_metrics["update_skipped"] == 0)
        losses = {name: each.total for name, each in report.losses.items()}
        metrics = losses | model.summary(report.statistics) | update_metrics | counts
        return TrainState(state.step + 1, parameters, optimizer_state), metrics

    out_shardings = None if layout is None else (layout.shardings, None)
    return jax.jit(step, donate_argnums=0, out_shardings=out_shardings)


def build_gradients(model: Any, trained: Tree, microbatches: int) -> Gradients:
    """The loss of a whole batch and its gradients, over microbatches one after the other."""

    def loss(parameters: Tree, others: Tree, batch: Batch, counts: Counts, key: Any, so_far: Any):
        return bind(model, join(parameters, others)).loss(batch, counts, key=key, so_far=so_far)

    gradient = jax.value_and_grad(loss, has_aux=True)

    def whole(parameters: Tree, batch: Batch, counts: Counts, key: jax.Array | None):
        (value, report), gradients = gradient(*split(parameters, trained), batch, counts, key, None)
        return value, report, gradients

    def summed(parameters: Tree, batch: Batch, counts: Counts, key: jax.Array | None):
        parts = _cut(batch, microbatches)
        some, others = split(parameters, trained)

        def add(carry, part):
            (value, report, gradients), (index, microbatch) = carry, part
            part_key = None if key is None else jax.random.fold_in(key, index)
            so_far = report.statistics or None
            (more, said), new = gradient(some, others, microbatch, counts, part_key, so_far)
            return (value + more, report.join(said), jax.tree.map(jnp.add, gradients, new)), None

        first = jax.tree.map(lambda array: array[0], parts)
        (value, report), shapes = jax.eval_shape(gradient, some, others, first, counts, key, None)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (value, shapes))
        start = (nothing[0], report.empty(), nothing[1])
        total, _ = jax.lax.scan(add, start, (jnp.arange(microbatches), parts))
        return total

    return whole if microbatches == 1 else summed


def _cut(batch: Batch, microbatches: int) -> Batch:
    """The microbatches, along a new first axis."""
    rows = next(iter(batch.values())).shape[0]
    if rows % microbatches:
        raise ValueError(f"{microbatches} microbatches do not divide a batch of {rows} rows")

    def cut(array: Array) -> Array:
        # Row r goes to microbatch r mod n: each device keeps its own rows, and nothing moves.
        return jnp.moveaxis(array.reshape(rows // microbatches, microbatches, *array.shape[1:]), 1, 0)

    return jax.tree.map(cut, batch)


def _after_step(model: Any, parameters: Tree, report: Report, applied: Bool[Array, ""]) -> Tree:
    """The parameters after what the model itself does to them; nothing where the update was left out."""
    changed = model.after_step(parameters, report.statistics)
    return jax.tree.map(
        lambda new, old: old if new is old else jnp.where(applied, new, old), changed, parameters
    )


def build_evaluation_step(model: Any) -> Callable[[Tree, Batch], tuple[dict[str, Loss], Counts]]:
    """`(parameters, batch) → (losses, counts)`, sums over this batch; jitted, no dropout."""

    def step(parameters: Tree, batch: Batch) -> tuple[dict[str, Loss], Counts]:
        counts = model.counts(batch)
        _, report = bind(model, parameters).loss(batch, {name: jnp.ones(()) for name in counts})
        return dict(report.losses), counts

    return jax.jit(step)
