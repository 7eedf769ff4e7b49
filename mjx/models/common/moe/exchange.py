"""A ragged all-to-all: from every device to every other as many rows as there are, and back."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from mjx.errors import InputError
from mjx.kernels.capability import current_device
from mjx.kernels.varying import varying


class Moves(NamedTuple):
    """Which rows of which device go where; every device knows all."""

    counts: Int[Array, "devices devices"]
    """Rows from one device (first) to another."""
    taken: Int[Array, "devices devices"]
    """Their first place in the sender's array."""
    put: Int[Array, "devices devices"]
    """Their first place in the receiver's."""

    @property
    def back(self) -> "Moves":
        """The other way."""
        return Moves(self.counts.T, self.put.T, self.taken.T)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def exchange(
    rows: Float[Array, "rows *features"], moves: Moves, room: int, axes: str | tuple[str, ...]
) -> Float[Array, "room *features"]:
    """The rows that come to this device along these mesh axes, each in its place among `room`; else zeros.

    Inside `jax.shard_map`. Its gradient is the same exchange backwards.
    """
    if current_device()[0] == "gpu":
        return _collective(rows, moves, room, axes)
    return _emulated(rows, moves, room, axes)


def _forward(rows: Array, moves: Moves, room: int, axes: str | tuple[str, ...]) -> tuple[Array, tuple]:
    return exchange(rows, moves, room, axes), (moves, rows.shape[0])


def _backward(room: int, axes: str | tuple[str, ...], kept: tuple, slope: Array) -> tuple[Array, None]:
    moves, rows = kept
    return exchange(slope, moves.back, rows, axes), None


exchange.defvjp(_forward, _backward)


def _collective(rows: Array, moves: Moves, room: int, axes: str | tuple[str, ...]) -> Array:
    me = jax.lax.axis_index(axes)
    # Zeros that depend on the rows: constant ones are taken out of the loop over layers, and copied for each.
    zeros = jnp.zeros((room, *rows.shape[1:]), rows.dtype)
    zeros, rows = jax.lax.optimization_barrier((varying(zeros, _names(axes)), rows))
    return jax.lax.ragged_all_to_all(
        rows, zeros, moves.taken[me], moves.counts[me], moves.put[me], moves.counts[:, me], axis_name=axes
    )


def _emulated(rows: Array, moves: Moves, room: int, axes: str | tuple[str, ...]) -> Array:
    """For platforms that have no such collective: every device gets all rows, and takes its own."""
    me, every = jax.lax.axis_index(axes), jax.lax.all_gather(rows, axes, tiled=True)
    first, counts = moves.put[:, me], moves.counts[:, me]
    place = jnp.arange(room, dtype=jnp.int32)[:, None]
    comes = (place >= first) & (place < first + counts)
    sender = jnp.argmax(comes, axis=1)
    row = sender * rows.shape[0] + moves.taken[sender, me] + place[:, 0] - first[sender]
    row = jnp.where(jnp.any(comes, axis=1), row, every.shape[0])
    return jnp.take(every, row, axis=0, mode="fill", fill_value=0)


def _names(axes: str | tuple[str, ...]) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else axes


def check_exchange(axes: tuple[str, ...]) -> None:
    """Try it on the devices of the mesh in force, there and back, against what it should give.

    Drivers and compilers have had it wrong: rows that were lost, gradients of other rows.

    Raises:
        InputError: a row is not where it should be.
    """
    mesh = jax.sharding.get_mesh()
    devices, most, features = int(np.prod([mesh.shape[axis] for axis in axes])), 37, 8
    counts = np.random.RandomState(0).randint(0, most, (devices, devices)).astype(np.int32)
    counts[0, -1], counts[-1, 0] = 0, most  # one sends nothing to another
    taken = np.cumsum(counts, axis=1, dtype=np.int32) - counts
    put = np.cumsum(counts, axis=0, dtype=np.int32) - counts
    rows, room = most * devices, most * devices + 3
    axis = axes[0] if len(axes) == 1 else axes
    spec = PartitionSpec(axis)

    @jax.jit
    @functools.partial(jax.shard_map, in_specs=(spec, PartitionSpec()), out_specs=(spec, spec))
    def there_and_back(values: Array, moves: Moves) -> tuple[Array, Array]:
        def send(values: Array) -> Any:
            return exchange(values, moves, room, axis)

        there, pull = jax.vjp(send, values)
        return there, pull(2 * there)[0]

    values = np.arange(1, devices * rows * features + 1, dtype=np.float32).reshape(devices, rows, features)
    # Placed by hand: in a run nothing comes to the devices unasked.
    given = jax.device_put(values.reshape(-1, features), NamedSharding(mesh, spec))
    moves = jax.device_put(Moves(counts, taken, put), NamedSharding(mesh, PartitionSpec()))  # type: ignore[arg-type]
    there, back = there_and_back(given, moves)
    expected = np.zeros((devices, room, features), np.float32)
    returned = np.zeros_like(values)
    for sender, receiver in np.ndindex(devices, devices):
        count = counts[sender, receiver]
        sent = slice(taken[sender, receiver], taken[sender, receiver] + count)
        expected[receiver, put[sender, receiver] : put[sender, receiver] + count] = values[sender, sent]
        returned[sender, sent] = 2 * values[sender, sent]
    for what, found, right in (("rows", there, expected), ("gradients", back, returned)):
        right = right.reshape(-1, features)
        for shard in found.addressable_shards:
            wrong = np.any(jax.device_get(shard.data) != right[shard.index], axis=1).sum()
            if wrong:
                raise InputError(
                    f"moe.dispatch.way = ragged: {wrong} of {len(shard.data)} {what} of a ragged all-to-all "
                    f"over {', '.join(axes)} come out wrong on {shard.device}; use fixed or gather"
                )
