"""What a mixture of experts sends, holds and computes on each device, by closed forms."""

import math
from typing import NamedTuple

from mjx.models.common.moe.config import MoEConfig
from mjx.models.common.moe.dispatch import Way, way_of
from mjx.models.common.moe.experts import shapes_of
from mjx.models.common.moe.fixed import cell_rows
from mjx.models.common.moe.layout import Axes, Layout, layout_of
from mjx.models.common.moe.ragged import room_of
from mjx.models.common.pattern import Exchange, Lengths, StepOnMesh, Work


class _Layer(NamedTuple):
    """A layer and a device's tokens of a microbatch."""

    config: MoEConfig
    layout: Layout
    tokens: int
    width: int
    """Features that experts read."""
    itemsize: int

    @property
    def token_bytes(self) -> int:
        return self.width * self.itemsize

    @property
    def row_flops(self) -> float:
        """Of a row on one of the devices that share its expert."""
        whole = self.config.mlp.flops_per_token(self.width, Lengths(0))
        return whole / self.layout.size(self.layout.hidden)

    def splitting(self, axes: Axes) -> Axes:
        """Those of the axes that split tokens."""
        return self.layout.ordered(set(axes) & set(self.layout.token_axes))


def work(config: MoEConfig, embed: int, step: StepOnMesh) -> Work:
    """Of a layer, for the tokens of a microbatch that a device has."""
    width = config.latent or embed
    shape = (step.rows, step.sequence, width)
    layout = layout_of(shape, shapes_of(config, embed), sizes=step.sizes, rules=step.rules)
    tokens = step.rows * step.sequence // layout.size(layout.token_axes)
    layer = _Layer(config, layout, tokens, width, step.itemsize)
    way = way_of(config, layout)
    ways = {"gather": _gather, "fixed": _fixed, "ragged": _ragged}
    found = ways[way.name](layer)
    if way.name != "gather" and config.dispatch.exact:
        # Where there is no room it is done by gather, for which the memory has to be there.
        other = _gather(layer)
        most = max(found.kept + found.between, other.kept + other.between)
        found = found._replace(between=most - found.kept)
    return found._replace(said=_said(config, layout, way))


def _gather(layer: _Layer) -> Work:
    layout = layer.layout
    group = layout.size(layer.splitting(layout.owners + layout.hidden))
    held = group * layer.tokens * layer.width
    rows = layer.tokens * group / layout.size(layout.owners) * layer.config.top_k  # of balanced experts
    sent = layer.tokens * layer.token_bytes
    return Work(_all_tokens(layer, sent), held, 3 * held, rows * layer.row_flops)


def _fixed(layer: _Layer) -> Work:
    """Its products are batched, and so counted by the compiler."""
    config, layout = layer.config, layer.layout
    rows = config.experts * cell_rows(layer.tokens, config.top_k, config.experts, config.dispatch.cell)
    seen = rows * layout.size(layer.splitting(layout.hidden))
    hidden = (2 if config.mlp.gated else 1) * config.mlp.features / layout.size(layout.hidden)
    kept = seen * (layer.width + hidden)
    between = kept + seen * (2 * layer.width + hidden) + 2 * rows * layer.width
    sent = rows * layer.token_bytes
    return Work(_own_rows(layer, sent, sent), kept, between)


def _ragged(layer: _Layer) -> Work:
    """Of balanced experts, but for what there has to be room for."""
    config, layout = layer.config, layer.layout
    owners, split = layout.size(layout.owners), layout.size(layer.splitting(layout.hidden))
    rows = layer.tokens * config.top_k
    room = room_of(layer.tokens, config.top_k, config.experts, owners, config.dispatch.cell)
    held = room * split * layer.width
    between = 3 * held + 2 * rows * layer.width
    exchanges = _own_rows(layer, rows * layer.token_bytes, room * layer.token_bytes)
    return Work(exchanges, held, between, rows * split * layer.row_flops)


def _said(config: MoEConfig, layout: Layout, way: Way) -> str:
    """Which way is taken, and why."""
    axes = " × ".join(layout.owners + layout.hidden)
    if not axes:
        return ""
    sent = ", ".join(f"{name} {rows:.3g}" for name, rows in way.rows.items())
    named = "named" if config.dispatch.way != "auto" else "the least" if len(way.rows) > 1 else "the only one"
    return (
        f"{config.experts} experts over {axes}: {way.name}, {named} "
        f"(rows sent for each token and way: {sent})"
    )


def _all_tokens(layer: _Layer, sent: float) -> tuple[Exchange, ...]:
    """Tokens are gathered, and sums scattered; without tokens to gather, sums are made whole.

    What is gathered is gathered again for the backward pass, but for what the scatter made.
    """
    layout = layer.layout
    group = layout.owners + layout.hidden
    split = layer.splitting(group)
    whole = layout.ordered(set(group) - set(split))
    found = []
    if split:
        once = (layout.size(split) - 1) * sent
        found.append(Exchange("experts", split, 2 * once, once, 2 * once))
    if whole:
        once = 2 * sent * layout.size(split) * _ring(layout, whole)
        found.append(Exchange("experts", whole, once, 0.0, once))
    return tuple(found)


def _own_rows(layer: _Layer, sent: float, held: float) -> tuple[Exchange, ...]:
    """Rows go to their experts and come back; only what goes there is sent again for the backward pass.

    `sent` and `held` are the bytes that a device sends to owners of experts, and those that come to it.
    """
    layout, found = layer.layout, []
    if layout.owners:
        once = sent * _ring(layout, layout.owners)
        found.append(Exchange("experts", layout.owners, 2 * once, once, 2 * once))
    if split := layer.splitting(layout.hidden):
        once = (layout.size(split) - 1) * held
        found.append(Exchange("experts", split, 2 * once, once, 2 * once))
    if whole := layout.ordered(set(layout.hidden) - set(split)):
        once = 2 * held * layout.size(split) * _ring(layout, whole)
        found.append(Exchange("experts", whole, once, 0.0, once))
    return tuple(found)


def _ring(layout: Layout, axes: Axes) -> float:
    """The share of an array that a device sends in an all-to-all."""
    return 1 - 1 / math.prod(layout.sizes[axis] for axis in axes)
