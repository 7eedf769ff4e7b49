"""The compiled steps: one optimizer update, and one evaluation batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from mjx.models.common.parameter import bind, differentiated
from mjx.models.family import Batch, Counts, Metrics
from mjx.models.report import Loss, Report
from mjx.sharding import shard
from mjx.training.gradients import build_gradients, over_replicas
from mjx.training.optimizer import OptimizerConfig, apply_gradients
from mjx.training.schedule import Schedule
from mjx.training.state import StateLayout, TrainState
from mjx.trees import Tree, join, split

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def build_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    config: OptimizerConfig,
    schedule: Schedule,
    *,
    layout: StateLayout | None = None,
    microbatches: int = 1,
    replicas: str | None = None,
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
        replicas: the mesh axis whose devices add their gradients up once, after the scan (`replica_axis`).
        dropout_seed: None switches dropout off.
    """
    trained = differentiated(model) if layout is None else layout.trained
    gradients_of = build_gradients(model, trained, microbatches)
    if replicas is not None:
        gradients_of = over_replicas(gradients_of, replicas)

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


def _after_step(model: Any, parameters: Tree, report: Report, applied: Bool[Array, ""]) -> Tree:
    """The parameters after what the model itself does to them; nothing where the update was left out."""
    changed = model.after_step(parameters, report.statistics)
    return jax.tree.map(
        lambda new, old: old if new is old else jnp.where(applied, new, old), changed, parameters
    )


class Evaluated(NamedTuple):
    """Of an evaluation batch."""

    losses: dict[str, Loss]
    """Sums."""
    counts: Counts
    rows: dict[str, Array]
    """`Report.rows`, whole on every device."""


def build_evaluation_step(model: Any) -> Callable[[Tree, Batch], Evaluated]:
    """`(parameters, batch) → losses, counts and rows` of this batch; jitted, no dropout."""

    def step(parameters: Tree, batch: Batch) -> Evaluated:
        counts = model.counts(batch)
        ones = {name: jnp.ones(()) for name in counts}
        _, report = bind(model, parameters).loss(batch, ones, training=False)
        rows = {name: shard(array, *[None] * array.ndim) for name, array in report.rows.items()}
        return Evaluated(dict(report.losses), counts, rows)

    return jax.jit(step)
