"""Tokens to their experts and back: on one device, or in one of several ways over a mesh."""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from mjx.errors import InputError
from mjx.kernels.varying import varying
from mjx.models.common.moe.config import MoEConfig
from mjx.models.common.moe.experts import KEPT, OneExpert, Weights
from mjx.models.common.moe.fixed import cell_rows, cells_of, fixed
from mjx.models.common.moe.gather import gather
from mjx.models.common.moe.layout import Layout, axis_of, layout_of
from mjx.models.common.moe.ragged import ragged, room_of, sent_of
from mjx.models.common.moe.router import Routing, capacity
from mjx.models.rarely import RARELY
from mjx.sharding import axes_per_dimension


class Dispatched(NamedTuple):
    """What comes back."""

    y: Float[Array, "batch residual_sequence embed"]
    left_out: Bool[Array, "batch residual_sequence top_k"] | None
    """Choices for which there was no room; None: there always is."""


def dispatch(
    config: MoEConfig, x: Float[Array, "batch residual_sequence embed"], routing: Routing, weights: Weights
) -> Dispatched:
    """The sum of every token over its experts.

    Inside, every mesh axis is manual: where XLA lays out some of them, it moves tokens and weights about.

    Raises:
        InputError: the experts cannot be laid out over this mesh, or not in the way that is named.
    """
    layout = layout_of(x.shape, weights)
    expert = OneExpert(config.mlp, config.probabilities_on == "input")
    way = way_of(config, layout).name

    def local(x: Array, ids: Array, probabilities: Array, weights: Weights) -> tuple[Array, Array]:
        tokens = x.reshape(-1, x.shape[-1])
        choices = Routing(ids.reshape(-1, ids.shape[-1]), probabilities.reshape(-1, ids.shape[-1]))
        weights = _whole(weights, layout, x.dtype)

        if way == "gather":
            y = gather(layout, expert, tokens, choices, weights, config.implementation)
            return y.reshape(x.shape), jnp.zeros_like(ids, bool)
        if way == "fixed":
            size = _cell(config, layout, tokens.shape[0])
            cells = cells_of(choices.ids, config.experts, size)
            for_all, overflow = size == tokens.shape[0], cells.overflow
            send = functools.partial(_fixed, layout, expert, cells)
        else:
            sizes = tokens.shape[0], config.top_k, config.experts, layout.size(layout.owners)
            room = room_of(*sizes, config.dispatch.cell)
            sent = sent_of(layout, choices.ids, config.experts, room)
            for_all, overflow = room == room_of(*sizes, math.inf), sent.overflow
            send = functools.partial(_ragged, layout, expert, sent, config.implementation)
        if config.dispatch.exact and not for_all:
            y = _or_gather(layout, expert, overflow, send, tokens, choices, weights, config.implementation)
            return y.reshape(x.shape), jnp.zeros_like(ids, bool)
        return send(tokens, choices, weights).reshape(x.shape), overflow.reshape(ids.shape)

    if layout.sizes:
        # The backward pass gathers shares of weights again: whole, those of all layers would be kept.
        policy = jax.checkpoint_policies.save_only_these_names(KEPT)
        local = jax.checkpoint(local, policy=policy, prevent_cse=False)
        tokens, of_tokens = layout.tokens, PartitionSpec(*layout.tokens[:2])
        local = jax.shard_map(
            local, in_specs=(tokens, of_tokens, of_tokens, layout.weights), out_specs=(tokens, of_tokens)
        )
    y, left_out = local(x, routing.ids, routing.probabilities, weights)
    return Dispatched(y, None if way == "gather" or config.dispatch.exact else left_out)


class Way(NamedTuple):
    """The way that is taken, and what each possible one would send."""

    name: Literal["gather", "fixed", "ragged"]
    rows: dict[str, float]
    """Rows that a device sends to experts for each of its tokens; as many come back."""


def way_of(config: MoEConfig, layout: Layout) -> Way:
    """The way that is named, or of gather and fixed the one that sends less.

    Where `owners` devices share the experts, `gather` sends every token to all others, `fixed` cells for
    top_k of them, and `ragged` the top_k themselves; where tokens and hidden features are split over the same
    axes, all gather over these.

    Raises:
        InputError: the one that is named cannot be taken on this mesh.
    """
    named, owners = config.dispatch.way, layout.size(layout.owners)
    hidden = layout.size(layout.ordered(set(layout.hidden) & set(layout.token_axes)))
    cells = config.top_k * config.dispatch.cell
    rows = {"gather": owners * hidden - 1.0, "fixed": cells * (1 - 1 / owners + hidden - 1)}
    if named == "ragged" and owners == 1:
        return Way("gather", rows)  # nothing is sent to anybody's experts
    if named == "ragged":
        rows["ragged"] = config.top_k * (1 - 1 / owners) + cells * (hidden - 1)
    possible = set(layout.owners) <= set(layout.token_axes)
    if named in ("fixed", "ragged") and not possible:
        raise InputError(
            f"moe.dispatch.way = {named} needs tokens that are split over all axes that split the experts "
            f"({', '.join(layout.owners)}), but they are split over "
            f"{', '.join(layout.token_axes) or 'none'}; use gather, or sharding.sequence_parallel = true"
        )
    if not possible:
        del rows["fixed"]
    if named != "auto":
        return Way(named, rows)
    if not layout.sizes:
        return Way("fixed" if config.pad_to_capacity else "gather", rows)
    return Way("fixed" if rows.get("fixed", rows["gather"]) < rows["gather"] else "gather", rows)


def _cell(config: MoEConfig, layout: Layout, tokens: int) -> int:
    """Rows of a cell."""
    if config.pad_to_capacity and not layout.sizes:
        return min(tokens, capacity(config, tokens))
    return cell_rows(tokens, config.top_k, config.experts, config.dispatch.cell)


def _whole(weights: Weights, layout: Layout, dtype: jnp.dtype) -> Weights:
    """This device's experts, with all features that they read, in the compute dtype.

    Typed as varying before they are cast and gathered: so gradients are scattered over the shares first, and
    then the shares are summed over the copies, both in the compute dtype.
    """
    copies = layout.token_axes

    def one(array: Array | None, spec: PartitionSpec | None) -> Array | None:
        if array is None:
            return None
        array = varying(array, copies).astype(dtype)
        for dimension, axes in enumerate(axes_per_dimension(spec, array.ndim)):  # type: ignore[arg-type]
            if shares := tuple(axis for axis in axes if axis in layout.shares):
                array = jax.lax.all_gather(array, axis_of(shares), axis=dimension, tiled=True)
        return array

    pairs = zip(weights, layout.weights, strict=True)
    whole = Weights(*(one(*pair) for pair in pairs))  # type: ignore[arg-type]
    if layout.hidden and whole.down_bias is not None:
        # Each device has some of the hidden features, and the sum over them has the bias once.
        first = jax.lax.axis_index(axis_of(layout.hidden)) == 0
        whole = whole._replace(down_bias=jnp.where(first, whole.down_bias, 0))
    return whole


def _fixed(layout, expert, cells, tokens: Array, choices: Routing, weights: Weights) -> Array:
    return fixed(layout, expert, tokens, cells, choices.probabilities, weights)


def _ragged(layout, expert, sent, implementation, tokens: Array, choices: Routing, weights: Weights) -> Array:
    return ragged(layout, expert, tokens, sent, choices.probabilities, weights, implementation)


def _or_gather(
    layout: Layout,
    expert: OneExpert,
    overflow: Bool[Array, "tokens top_k"],
    send: Callable[[Array, Routing, Weights], Array],
    tokens: Array,
    choices: Routing,
    weights: Weights,
    implementation: str,
) -> Array:
    """By `send` where there is room for all, else all by gather: every device takes the same branch."""
    full = jnp.any(overflow).astype(jnp.int32)
    if layout.sizes:
        full = jax.lax.psum(varying(full, tuple(layout.sizes)), tuple(layout.sizes))

    def by_gather(tokens: Array, choices: Routing, weights: Weights) -> Array:
        with jax.named_scope(RARELY):
            return gather(layout, expert, tokens, choices, weights, implementation, keep=False)

    return jax.lax.cond(full > 0, by_gather, send, tokens, choices, weights)
