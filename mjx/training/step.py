"""The compiled steps: one optimizer update, and one evaluation batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mjx.models.common.parameter import bind
from mjx.models.family import Batch, Metrics
from mjx.training.optimizer import OptimizerConfig, apply_gradients
from mjx.training.schedule import Schedule
from mjx.training.state import StateLayout, TrainState
from mjx.trees import Tree

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


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

    The loss is the sum over the unmasked tokens of the whole batch divided by their number, so
    microbatches and data parallelism do not change it.

    Args:
        model: the definition (`abstract_model`); its arrays are not used.
        optimizer: built from `config`; what it makes of the gradient is added to the parameters.
        config: what else the optimizer's config asks for: clipping, non-finite steps.
        schedule: of the learning rate that is reported.
        layout: where the state lives; None on one device.
        microbatches: the batch is cut into this many parts, whose gradients are added up in a scan.
        dropout_seed: None switches dropout off.
    """

    def loss_sum(parameters: Tree, batch: Batch, key: jax.Array | None):
        return bind(model, parameters).loss(batch, key)

    gradient = jax.value_and_grad(loss_sum, has_aux=True)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        tokens = jnp.maximum(jnp.sum(batch["loss_mask"], dtype=jnp.float32), 1)
        key = None
        if dropout_seed is not None:
            key = jax.random.fold_in(jax.random.key(dropout_seed), state.step)
        if microbatches == 1:
            (_, sums), gradients = gradient(state.parameters, batch, key)
        else:
            sums, gradients = _accumulate(gradient, state.parameters, batch, key, microbatches)
        # Divided here and not in the loss: the number of tokens is the whole batch's.
        gradients = jax.tree.map(lambda g: g / tokens, gradients)
        if layout is not None:
            gradients = jax.lax.with_sharding_constraint(gradients, layout.moments)
        metrics = {name: value / tokens for name, value in sums.items()}
        parameters, optimizer_state, update_metrics = apply_gradients(
            optimizer,
            config,
            schedule,
            loss=metrics["loss"],
            grads=gradients,
            state=state.optimizer,
            params=state.parameters,
        )
        metrics |= update_metrics | {"tokens": tokens}
        return TrainState(state.step + 1, parameters, optimizer_state), metrics

    out_shardings = None if layout is None else (layout.shardings, None)
    return jax.jit(step, donate_argnums=0, out_shardings=out_shardings)


def _accumulate(
    gradient: Callable, parameters: Tree, batch: Batch, key: jax.Array | None, microbatches: int
) -> tuple[Metrics, Tree]:
    """Sums and gradients over the microbatches, one after the other."""
    rows = next(iter(batch.values())).shape[0]
    if rows % microbatches:
        raise ValueError(f"{microbatches} microbatches do not divide a batch of {rows} rows")

    def cut(array: Array) -> Array:
        # Row r goes to microbatch r mod n: each device keeps its own rows, and nothing moves.
        return jnp.moveaxis(array.reshape(rows // microbatches, microbatches, *array.shape[1:]), 1, 0)

    parts = jax.tree.map(cut, batch)

    def add(carry, part):
        index, microbatch = part
        part_key = None if key is None else jax.random.fold_in(key, index)
        (_, sums), gradients = gradient(parameters, microbatch, part_key)
        return jax.tree.map(jnp.add, carry, (sums, gradients)), None

    first = jax.tree.map(lambda array: array[0], parts)
    shapes = jax.eval_shape(gradient, parameters, first, key)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0][1], shapes[1]))
    total, _ = jax.lax.scan(add, zeros, (jnp.arange(microbatches), parts))
    return total


def build_evaluation_step(model: Any) -> Callable[[Tree, Batch], dict[str, Float[Array, ""]]]:
    """`(parameters, batch) → sums over its unmasked tokens`, `tokens` among them; jitted, no dropout."""

    def step(parameters: Tree, batch: Batch) -> Metrics:
        _, sums = bind(model, parameters).loss(batch)
        return sums | {"tokens": jnp.sum(batch["loss_mask"], dtype=jnp.float32)}

    return jax.jit(step)
