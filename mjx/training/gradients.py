"""Gradients of a whole batch: of its microbatches one after the other, and of its replicas."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from mjx.models.common.parameter import bind
from mjx.models.family import Batch, Counts, ModelConfig
from mjx.models.report import Report
from mjx.sharding import Rules
from mjx.trees import Tree, join, split

REPLICAS = "data"
"""The mesh axis that splits rows alone."""
FLOAT32 = 4
"""Bytes."""
MUCH = 4
"""Times the bytes that are sent once: below it XLA's sums, which hide behind products, take less time (Llama
3 70B on 512 GPUs with 4 microbatches: 16.8 s, and 17.2 s with one sum)."""
Gradients = Callable[[Tree, Batch, Counts, jax.Array | None], tuple[Float[Array, ""], Report, Tree]]
"""(parameters, batch, its counts, key of all chance) → (loss, report, gradients of what is trained)."""


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


def replica_axis(
    model: ModelConfig, mesh_shape: Mapping[str, int], rules: Rules, *, microbatches: int, zero1: bool
) -> str | None:
    """The mesh axis whose devices send much less if they add their gradients up once a step, in float32.

    By itself XLA adds each layer's gradient up while it goes through the layers: in every microbatch, in the
    compute dtype, behind products. With ZeRO-1 it then sends whole gradients, over all axes that split
    them. None: that is not much more, or the replicas cannot be told apart.
    """
    sent = microbatches * jnp.dtype(model.compute_dtype).itemsize
    gains = mesh_shape[REPLICAS] > 1 and microbatches > 1 and (zero1 or sent >= MUCH * FLOAT32)
    split = {name for name, rule in rules.rows.items() if REPLICAS in (*rule.activations, *rule.parameters)}
    rows_alone = split == {"batch"} and REPLICAS not in rules.rows["batch"].parameters
    return REPLICAS if gains and rows_alone and model.rows_apart else None


def over_replicas(gradients_of: Gradients, axis: str) -> Gradients:
    """Each of `axis`'s replicas computes the gradients of its own rows, and one sum adds them up.

    The other mesh axes are left to XLA. Every replica draws its own dropout: it depends on their number.
    """

    def replica(parameters: Tree, batch: Batch, counts: Counts, key: jax.Array | None):
        if key is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        loss, report, gradients = gradients_of(parameters, batch, counts, key)
        loss, gradients = jax.lax.psum((loss, gradients), axis)
        return loss, report.over_devices(axis), gradients

    everywhere, rows = PartitionSpec(), PartitionSpec(axis)

    def whole(parameters: Tree, batch: Batch, counts: Counts, key: jax.Array | None):
        return jax.shard_map(
            replica,
            in_specs=(everywhere, rows, everywhere, everywhere),
            out_specs=everywhere,
            axis_names={axis},
            check_vma=False,  # the loss's own gradient does not say over what it varies
        )(parameters, batch, counts, key)

    return whole
