"""Pairs told one by one, by devices in a ring (Zhai et al. 2023, section 3.3).

Each device holds its pictures; the texts go round. Of every block that visits, a device makes the logits,
their part of the loss and, as `cross_entropy` does, the gradient while they are there: that of its own
pictures it keeps, that of the texts goes on with them and is complete when they are home. So no device ever
has more texts than its own and those that visit, nor more logits than those of one block.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from mjx.models.common.pattern import Exchange, exchanging
from mjx.sharding import activation_spec, axes_per_dimension, mesh_shape

_FEATURES, _FLOAT32 = "features", 4


class PairSums(NamedTuple):
    """Sums over the rows that count."""

    loss: Float[Array, ""]
    """Of each row: minus the log of the chances of all that is said of its picture and each text."""
    nearest: Float[Array, ""]
    """Rows whose picture is nearest to its own text; without gradient."""


def sigmoid_loss(
    pictures: Float[Array, "batch latent"],
    texts: Float[Array, "batch latent"],
    counted: Float[Array, " batch"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
) -> PairSums:
    """Of every picture and every text of the global batch, −log σ(±(scale · cosine + bias)): + where they are
    of one row; in float32.

    Args:
        pictures: Of length one, in float32; so are the texts.
        texts: That of a picture has its number.
        counted: 0 of rows that only fill the batch, which are in no pair.
        scale: Factor on cosines.
        bias: Added to them.
    """
    return PairSums(*_loss(pictures, texts, counted, scale, bias))


def ring_exchange(rows: int, features: int, devices: int, axes: tuple[str, ...]) -> Exchange:
    """What a device with so many rows sends in a training step: texts, and whether they count, to all others;
    and their gradients, which come home. All of it in the forward pass."""
    texts, gradients = rows * (features + 1) * (devices - 1), rows * features * devices
    return Exchange(_FEATURES, axes, _FLOAT32 * (texts + gradients), 0.0, 0.0)


@jax.custom_vjp
def _loss(*arrays):
    return _over_the_mesh(*arrays, gradients=False)


def _forward(*arrays):
    sums, gradients = _over_the_mesh(*arrays, gradients=True)
    return sums, gradients


def _backward(gradients, cotangents):
    d_loss, _ = cotangents
    pictures, texts, scale, bias = (gradient * d_loss for gradient in gradients)
    return pictures, texts, None, scale, bias


_loss.defvjp(_forward, _backward)


def _over_the_mesh(pictures, texts, counted, scale, bias, *, gradients: bool):
    """Run `_round` on every device's own rows."""
    rows = activation_spec(("batch", "latent"), pictures.shape)
    axes, _ = axes_per_dimension(rows, 2)
    if all(size == 1 for size in mesh_shape().values()):
        return _round(pictures, texts, counted, scale, bias, axes=(), gradients=gradients)
    one, all_ = PartitionSpec(), (rows, rows, PartitionSpec(), PartitionSpec())
    return jax.shard_map(
        functools.partial(_round, axes=axes, gradients=gradients),
        in_specs=(rows, rows, activation_spec(("batch",), counted.shape), one, one),
        out_specs=((one, one), all_) if gradients else (one, one),
        check_vma=False,  # the gradients inside are ours, not derived through the collectives
    )(pictures, texts, counted, scale, bias)


class _Visiting(NamedTuple):
    """Texts that are on a device, their own or another's."""

    texts: Float[Array, "visiting latent"]
    counted: Float[Array, " visiting"]
    gradient: Float[Array, "visiting latent"] | None


class _Sums(NamedTuple):
    """What a device has of all blocks until now."""

    loss: Float[Array, ""]
    nearest_other: Float[Array, " rows"]
    gradients: tuple[Float[Array, "rows latent"], Float[Array, ""], Float[Array, ""]] | None
    """Of its pictures, of the scale and of the bias."""


def _round(pictures, texts, counted, scale, bias, *, axes: tuple[str, ...], gradients: bool):
    """One device's part: all texts come by, its own first."""
    zero, lowest = jnp.zeros((), jnp.float32), jnp.full(len(pictures), -jnp.inf)
    sums = _Sums(zero, lowest, (jnp.zeros_like(pictures), zero, zero) if gradients else None)
    visiting = _Visiting(texts, counted, jnp.zeros_like(texts) if gradients else None)
    meet = functools.partial(_meet, pictures, counted, scale, bias)
    sums, visiting = meet(sums, visiting, jnp.eye(len(pictures)))
    devices = jax.lax.axis_size(axes) if axes else 1
    onward = [(device, (device + 1) % devices) for device in range(devices)]

    @exchanging(_FEATURES)
    def sent(tree):
        return jax.tree.map(lambda array: jax.lax.ppermute(array, axes, onward), tree)

    def step(carried, _):
        sums, visiting = carried
        return meet(sums, sent(visiting), jnp.zeros(())), None

    if devices > 1:
        (sums, visiting), _ = jax.lax.scan(step, (sums, visiting), length=devices - 1)
    own = scale * jnp.sum(pictures * texts, axis=1) + bias
    nearest = jnp.sum(counted * (own >= sums.nearest_other))

    def total(x):
        return jax.lax.psum(x, axes) if axes else x

    said = total(sums.loss), total(nearest)
    if sums.gradients is None:
        return said
    d_pictures, d_scale, d_bias = sums.gradients
    d_texts = sent(visiting.gradient) if devices > 1 else visiting.gradient
    return said, (d_pictures, d_texts, total(d_scale), total(d_bias))


def _meet(
    pictures, counted, scale, bias, sums: _Sums, visiting: _Visiting, own: Float[Array, "#rows #visiting"]
) -> tuple[_Sums, _Visiting]:
    """A device's pictures and the texts that visit it; `own` is 1 where they are of one row."""
    cosines = pictures @ visiting.texts.T
    logits = scale * cosines + bias
    signs, pairs = 2 * own - 1, counted[:, None] * visiting.counted
    loss = sums.loss - jnp.sum(pairs * jax.nn.log_sigmoid(signs * logits))
    others = jnp.where((own == 0) & (visiting.counted > 0), logits, -jnp.inf)
    nearest_other = jnp.maximum(sums.nearest_other, jnp.max(others, axis=1))
    if sums.gradients is None or visiting.gradient is None:
        return _Sums(loss, nearest_other, None), visiting
    d_logits = -pairs * signs * jax.nn.sigmoid(-signs * logits)
    d_pictures, d_scale, d_bias = sums.gradients
    gradients = (
        d_pictures + scale * (d_logits @ visiting.texts),
        d_scale + jnp.sum(d_logits * cosines),
        d_bias + jnp.sum(d_logits),
    )
    gradient = visiting.gradient + scale * (d_logits.T @ pictures)
    return _Sums(loss, nearest_other, gradients), visiting._replace(gradient=gradient)
