"""The language-model head and its loss, without ever holding all logits.

`tokens × vocab` is the largest array of a language model. Here it exists for one chunk of tokens at
a time, split over `tensor`; and since the loss is a scalar, the gradient of each chunk is made while
its logits are there, so that nothing of that size is kept for, or computed again in, the backward pass.
Where a device has so few tokens that the gradients of their logits take less memory than those of the
table, they are kept instead, until one product makes the table's gradient of them.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from mjx.errors import InputError
from mjx.sharding import activation_spec, axes_per_dimension, current_rules, mesh_shape, parameter_spec


class LossSums(NamedTuple):
    """Sums over the unmasked tokens."""

    cross_entropy: Float[Array, ""]
    z_loss: Float[Array, ""]
    """log²(partition function), not yet weighted."""


def language_model_loss(
    hidden: Float[Array, "batch sequence embed"],
    weight: Float[Array, "vocab embed"],
    labels: Int[Array, "batch sequence"],
    mask: Float[Array, "batch sequence"],
    vocab_size: int,
    z_loss: float = 0.0,
    chunks: int = 1,
    soft_cap: float | None = None,
    bias: Float[Array, " vocab"] | None = None,
) -> tuple[Float[Array, ""], LossSums]:
    """Cross-entropy of the labels under `softmax(hidden · weightᵀ + bias)`, plus `z_loss` · log² Z (Chowdhery
    et al. 2022, section 5); in float32.

    Rows of `weight` from `vocab_size` on are padding: their logits are minus infinity. `chunks` is how many
    chunks of tokens the sequence is cut into. `soft_cap` first bounds every logit l to
    soft_cap · tanh(l / soft_cap) (Gemma 2).

    Returns:
        The loss summed over tokens by `mask`, and its parts. The parts have no gradient.
    """
    return _loss(hidden, weight, bias, labels, mask, vocab_size, z_loss, chunks, soft_cap)


def _value(hidden, weight, bias, labels, mask, *options):
    local, _ = _local_functions(*options)
    return _over_the_mesh(local, hidden, weight, bias, labels, mask, gradients=False)


def _forward(hidden, weight, bias, labels, mask, *options):
    _, local = _local_functions(*options)
    out, (d_hidden, d_weight, d_bias) = _over_the_mesh(
        local, hidden, weight, bias, labels, mask, gradients=True
    )
    return out, (d_hidden, d_weight.astype(weight.dtype), d_bias)


def _backward(vocab_size, z_loss, chunks, soft_cap, gradients, cotangents):
    scale, _ = cotangents
    return *jax.tree.map(lambda gradient: gradient * scale.astype(gradient.dtype), gradients), None, None


_loss = jax.custom_vjp(_value, nondiff_argnums=(5, 6, 7, 8))
_loss.defvjp(_forward, _backward)


def _over_the_mesh(local, hidden, weight, bias, labels, mask, *, gradients: bool):
    """Run `local` on every device's own tokens and its own share of the vocabulary."""
    shape = mesh_shape()
    if all(size == 1 for size in shape.values()):
        return local(hidden, weight, bias, labels, mask, reduce=_Reduction({}, PartitionSpec()))
    tokens = activation_spec(("batch", "sequence"), labels.shape)
    states = activation_spec(("batch", "sequence", "embed"), hidden.shape)
    residual = activation_spec(("batch", "residual_sequence", "embed"), hidden.shape)
    rows = activation_spec(("vocab", "embed"), weight.shape)
    stored = parameter_spec(("vocab", "embed"), weight.shape)
    of_bias = None if bias is None else activation_spec(("vocab",), bias.shape)
    sums = PartitionSpec()  # of the loss and of both its parts
    # Cast where it is stored: the rows travel in the dtype that they are multiplied in.
    weight = jax.lax.with_sharding_constraint(weight.astype(hidden.dtype), stored)
    return jax.shard_map(
        functools.partial(local, reduce=_Reduction(shape, stored, scatter_states=states != residual)),
        in_specs=(states, rows, of_bias, tokens, tokens),
        out_specs=(sums, (residual, stored, of_bias)) if gradients else sums,
        check_vma=False,  # the gradients inside are ours, not derived through the collectives
    )(hidden, weight, bias, labels, mask)


class _Reduction:
    """The sums over devices that the loss needs; on one device, none."""

    def __init__(self, shape: Mapping[str, int], stored: PartitionSpec, *, scatter_states: bool = False):
        rules = current_rules()
        self.tensor = shape.get("tensor", 1) > 1
        self.scatter_states = scatter_states
        token_axes = (*rules.mesh_axes("batch"), *rules.mesh_axes("sequence"))
        self.token_axes = tuple(axis for axis in token_axes if shape.get(axis, 1) > 1)
        _, self.scattered = axes_per_dimension(stored, 2)

    def vocabulary_max(self, x: Array) -> Array:
        return jax.lax.pmax(x, "tensor") if self.tensor else x

    def vocabulary_sum(self, x: Array) -> Array:
        return jax.lax.psum(x, "tensor") if self.tensor else x

    def state_sum(self, x: Array) -> Array:
        """Over the shares of the vocabulary; with sequence parallelism each device keeps its own tokens."""
        if not self.scatter_states:
            return self.vocabulary_sum(x)
        return jax.lax.psum_scatter(x, "tensor", scatter_dimension=1, tiled=True)

    def vocabulary_start(self, rows: int) -> Array | int:
        return jax.lax.axis_index("tensor") * rows if self.tensor else 0

    def token_sum(self, x: Array) -> Array:
        return jax.lax.psum(x, self.token_axes) if self.token_axes else x

    def weight_sum(self, x: Array) -> Array:
        """Over all tokens; left split over the axes that the parameter itself is split over."""
        for axis in self.scattered:
            x = jax.lax.psum_scatter(x, axis, scatter_dimension=1, tiled=True)
        rest = tuple(axis for axis in self.token_axes if axis not in self.scattered)
        return jax.lax.psum(x, rest) if rest else x


def _local_functions(vocab_size: int, z_loss: float, chunks: int, soft_cap: float | None):
    """The loss of one device's tokens, without and with its gradients."""

    def chunk_loss(
        hidden: Array, weight: Array, bias: Array | None, labels: Array, mask: Array, reduce: _Reduction
    ):
        """Sums of one chunk `[tokens, …]`, and what its gradient needs."""
        logits = jnp.einsum("te,ev->tv", hidden, weight, preferred_element_type=jnp.float32)
        logits = logits if bias is None else logits + bias
        slope = None
        if soft_cap is not None:
            bounded = jnp.tanh(logits / soft_cap)
            logits, slope = soft_cap * bounded, 1 - jnp.square(bounded)
        rows = weight.shape[1]
        ids = reduce.vocabulary_start(rows) + jnp.arange(rows)
        logits = jnp.where(ids < vocab_size, logits, -jnp.inf)
        is_label = ids == labels[:, None]
        maximum = reduce.vocabulary_max(jnp.max(logits, axis=-1))
        exponentials = jnp.exp(logits - maximum[:, None])
        total = reduce.vocabulary_sum(jnp.sum(exponentials, axis=-1))
        label_logit = reduce.vocabulary_sum(jnp.sum(jnp.where(is_label, logits, 0), axis=-1))
        log_z = maximum + jnp.log(total)
        sums = LossSums(jnp.sum(mask * (log_z - label_logit)), jnp.sum(mask * jnp.square(log_z)))
        return sums, (exponentials, total, is_label, log_z, slope)

    def chunked(array: Array) -> Array:
        """`[batch, sequence, …]` → `[chunks, tokens, …]`, cut along the sequence."""
        batch, sequence = array.shape[:2]
        if sequence % chunks:
            raise InputError(
                f"loss_chunks = {chunks} does not divide the {sequence} tokens of a row that one device has"
            )
        cut = array.reshape(batch, chunks, sequence // chunks, *array.shape[2:])
        return jnp.moveaxis(cut, 1, 0).reshape(chunks, batch * sequence // chunks, *array.shape[2:])

    def unchunked(array: Array, batch: int) -> Array:
        cut = array.reshape(chunks, batch, -1, *array.shape[2:])
        return jnp.moveaxis(cut, 0, 1).reshape(batch, -1, *array.shape[2:])

    def finish(sums: LossSums, reduce: _Reduction):
        sums = LossSums(*(reduce.token_sum(part) for part in sums))
        return sums.cross_entropy + z_loss * sums.z_loss, sums

    def nothing() -> LossSums:
        zero = jnp.zeros((), jnp.float32)  # made where it is used: it belongs to the mesh there
        return LossSums(zero, zero)

    def loss(
        hidden: Array, weight: Array, bias: Array | None, labels: Array, mask: Array, *, reduce: _Reduction
    ):
        weight = weight.astype(
            hidden.dtype
        ).T  # as `embed`, the axis it is gathered over, comes out of a gather

        def step(sums: LossSums, chunk):
            part, _ = chunk_loss(chunk[0], weight, bias, chunk[1], chunk[2], reduce)
            return jax.tree.map(jnp.add, sums, part), None

        sums, _ = _scan(step, nothing(), tuple(map(chunked, (hidden, labels, mask))))
        return finish(sums, reduce)

    def loss_and_gradients(
        hidden: Array, weight: Array, bias: Array | None, labels: Array, mask: Array, *, reduce: _Reduction
    ):
        weight = weight.astype(hidden.dtype).T
        # One product makes the gradient of the weight if keeping d_logits takes no more memory than a float32
        # accumulator and each chunk's product, which are also slower: every chunk reads and writes both.
        tokens, embed = labels.size, hidden.shape[-1]
        keep = tokens * hidden.dtype.itemsize <= 2 * embed * jnp.dtype(jnp.float32).itemsize

        def step(carry, chunk):
            sums, d_weight, d_bias = carry
            states, labels, mask = chunk
            part, kept = chunk_loss(states, weight, bias, labels, mask, reduce)
            exponentials, total, is_label, log_z, slope = kept
            scale = mask * (1 + 2 * z_loss * log_z)
            d_logits = exponentials * (scale / total)[:, None] - jnp.where(is_label, mask[:, None], 0)
            d_logits = d_logits if slope is None else d_logits * slope
            d_bias = None if d_bias is None else d_bias + jnp.sum(d_logits, axis=0)
            d_logits = d_logits.astype(hidden.dtype)
            d_states = jnp.einsum("tv,ev->te", d_logits, weight)
            if not keep:
                d_weight += jnp.einsum("tv,te->ev", d_logits, states, preferred_element_type=jnp.float32)
            sums = jax.tree.map(jnp.add, sums, part)
            return (sums, d_weight, d_bias), (d_states, d_logits if keep else None)

        d_bias = None if bias is None else jnp.zeros(bias.shape, jnp.float32)
        start = (nothing(), None if keep else jnp.zeros(weight.shape, jnp.float32), d_bias)
        inputs = tuple(map(chunked, (hidden, labels, mask)))
        (sums, summed, d_bias), (d_hidden, d_logits) = _scan(step, start, inputs)
        if summed is None:
            d_weight = jnp.einsum("ctv,cte->ev", d_logits, inputs[0])
        else:
            d_weight = summed.astype(hidden.dtype)
        # Without the barrier XLA makes the table's gradient last of all, and keeps d_logits until then.
        d_hidden, d_weight = jax.lax.optimization_barrier((d_hidden, d_weight))
        d_hidden = reduce.state_sum(unchunked(d_hidden, hidden.shape[0]))
        d_bias = None if d_bias is None else reduce.token_sum(d_bias)
        return finish(sums, reduce), (d_hidden, reduce.weight_sum(d_weight.T), d_bias)

    return loss, loss_and_gradients


def _scan(step, carry, inputs):
    """`lax.scan`, but straight-line for one chunk."""
    if inputs[0].shape[0] > 1:
        return jax.lax.scan(step, carry, inputs)
    carry, out = step(carry, jax.tree.map(lambda leaf: leaf[0], inputs))
    return carry, jax.tree.map(lambda leaf: leaf[None], out)
