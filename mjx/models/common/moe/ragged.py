"""Every device sends each other the rows for its experts, as many as there are, and gets them back.

What it sends is the least. How many rows come to a device is known only then: there is room for some more
than its share.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from mjx.models.common.moe.exchange import Moves, exchange
from mjx.models.common.moe.experts import KEPT, OneExpert, Weights
from mjx.models.common.moe.layout import Layout, axis_of
from mjx.models.common.moe.own_experts import own_experts
from mjx.models.common.moe.permutation import gathered_sum, sort_choices, spread
from mjx.models.common.moe.router import Routing
from mjx.models.common.pattern import exchanging


class Sent(NamedTuple):
    """Which choice goes where."""

    choice: Int[Array, " choices"]
    """At each place, sorted by expert; those of no expert come last."""
    rows: Int[Array, "tokens top_k"]
    """The place of each choice; beyond the end if it is of no expert, or does not fit."""
    moves: Moves
    expert: Int[Array, " room"]
    """Of the rows that come here, counted from this device's first; as many as it has where none comes."""
    overflow: Bool[Array, "tokens top_k"]
    """Choices for which their device has no room."""


def room_of(tokens: int, top_k: int, experts: int, owners: int, cell: float) -> int:
    """Rows that a device has room for, where each of so many `owners` has so many tokens; for all that could
    come if `cell` is infinite."""
    most = owners * tokens * min(top_k, experts // owners)
    return math.ceil(min(most, max(1, cell * tokens * top_k)))


@exchanging("experts")
def sent_of(layout: Layout, ids: Int[Array, "tokens top_k"], experts: int, room: int) -> Sent:
    """Each device takes what the first senders have for it, of as many rows as it has room for."""
    owners, axis = layout.size(layout.owners), axis_of(layout.owners)
    here, me = experts // owners, jax.lax.axis_index(axis)
    chosen, flat = sort_choices(ids, experts), ids.reshape(-1)
    sizes = jax.lax.all_gather(chosen.sizes, axis)
    wanted = jnp.sum(sizes.reshape(owners, owners, here), axis=2, dtype=jnp.int32)
    taken = jnp.cumsum(wanted, axis=1, dtype=jnp.int32) - wanted
    put = jnp.cumsum(wanted, axis=0, dtype=jnp.int32) - wanted
    moves = Moves(jnp.clip(room - put, 0, wanted), taken, jnp.minimum(put, room))
    owner = jnp.minimum(flat // here, owners - 1)
    place = jnp.append(chosen.start, 0)[flat] + chosen.place
    fits = place - taken[me, owner] < moves.counts[me, owner]
    rows = jnp.where((flat < experts) & fits, place, flat.size).reshape(ids.shape)
    mine = jax.lax.dynamic_slice_in_dim(sizes, me * here, here, axis=1)
    ends = jnp.cumsum(mine.reshape(-1), dtype=jnp.int32)
    number = jnp.searchsorted(ends, jnp.arange(room, dtype=jnp.int32), side="right", method="compare_all")
    expert = jnp.where(number < ends.size, number % here, here)
    return Sent(chosen.order, rows, moves, expert, ((flat < experts) & ~fits).reshape(ids.shape))


@exchanging("experts")
def ragged(
    layout: Layout,
    expert: OneExpert,
    tokens: Float[Array, "tokens embed"],
    sent: Sent,
    probabilities: Float[Array, "tokens top_k"],
    weights: Weights,
    implementation: str,
) -> Float[Array, "tokens embed"]:
    """The sum of every token over its experts, where these have room; `weights` are this device's."""
    axis, choices, room = axis_of(layout.owners), sent.choice.size, sent.expert.size
    token = sent.choice // probabilities.shape[1]
    rows = exchange(spread(tokens, token, sent.rows), sent.moves, room, axis)
    factors = exchange(probabilities.reshape(-1)[sent.choice], sent.moves, room, axis)
    ids = sent.expert
    split = layout.ordered(set(layout.hidden) & set(layout.token_axes))
    whole = layout.ordered(set(layout.hidden) - set(layout.token_axes))
    if split:
        rows, factors, ids = (
            jax.lax.all_gather(array, axis_of(split), tiled=True) for array in (rows, factors, ids)
        )
    rows, factors = checkpoint_name(rows, KEPT), checkpoint_name(factors, KEPT)
    y = own_experts(expert, rows, Routing(ids[:, None], factors[:, None]), weights, implementation)
    if split:
        y = jax.lax.psum_scatter(y, axis_of(split), scatter_dimension=0, tiled=True)
    if whole:
        y = jax.lax.psum(y, axis_of(whole))
    return gathered_sum(exchange(y, sent.moves.back, choices, axis), sent.rows, token)
