"""What a mixture of experts sends, holds and computes on each device, by closed forms."""

import math

from mjx.models.common.moe.config import MoEConfig
from mjx.models.common.moe.dispatch import Way, way_of
from mjx.models.common.moe.experts import shapes_of
from mjx.models.common.moe.fixed import cell_rows
from mjx.models.common.moe.layout import Axes, Layout, layout_of
from mjx.models.common.pattern import Exchange, Lengths, StepOnMesh, Work


def work(config: MoEConfig, embed: int, step: StepOnMesh) -> Work:
    """Of a layer, for the tokens of a microbatch that a device has."""
    width = config.latent or embed
    shape = (step.rows, step.sequence, width)
    layout = layout_of(shape, shapes_of(config, embed), sizes=step.sizes, rules=step.rules)
    tokens = step.rows * step.sequence // layout.size(layout.token_axes)
    way = way_of(config, layout)
    said = _said(config, layout, way)
    row_flops = config.mlp.flops_per_token(width, Lengths(0)) / layout.size(layout.hidden)
    if way.name == "gather":
        group = layout.size(_split(layout, layout.owners + layout.hidden))
        mine = tokens * group / layout.size(layout.owners)  # of balanced experts
        held = group * tokens * width
        exchanges = _gather(layout, tokens * width * step.itemsize)
        return Work(exchanges, held, 3 * held, mine * config.top_k * row_flops, said)
    rows = config.experts * cell_rows(tokens, config.top_k, config.experts, config.dispatch.cell)
    seen = rows * layout.size(_split(layout, layout.hidden))
    hidden = (2 if config.mlp.gated else 1) * config.mlp.features / layout.size(layout.hidden)
    kept = seen * (width + hidden)
    between = kept + seen * (2 * width + hidden) + 2 * rows * width
    return Work(_fixed(layout, rows * width * step.itemsize), kept, between, said=said)


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


def _split(layout: Layout, axes: Axes) -> Axes:
    """Those of the axes that split tokens."""
    return layout.ordered(set(axes) & set(layout.token_axes))


def _gather(layout: Layout, sent: float) -> tuple[Exchange, ...]:
    """Tokens are gathered, and sums scattered; without tokens to gather, sums are made whole.

    What is gathered is gathered again for the backward pass, but for what the scatter made.
    """
    group = layout.owners + layout.hidden
    split = _split(layout, group)
    whole = layout.ordered(set(group) - set(split))
    found = []
    if split:
        once = (layout.size(split) - 1) * sent
        found.append(Exchange(split, 2 * once, once, 2 * once))
    if whole:
        once = 2 * sent * layout.size(split) * _ring(layout, whole)
        found.append(Exchange(whole, once, 0.0, once))
    return tuple(found)


def _fixed(layout: Layout, sent: float) -> tuple[Exchange, ...]:
    """Cells go to their experts and come back; only what goes there is sent again for the backward pass."""
    found = []
    if layout.owners:
        once = sent * _ring(layout, layout.owners)
        found.append(Exchange(layout.owners, 2 * once, once, 2 * once))
    if split := _split(layout, layout.hidden):
        once = (layout.size(split) - 1) * sent
        found.append(Exchange(split, 2 * once, once, 2 * once))
    if whole := layout.ordered(set(layout.hidden) - set(split)):
        once = 2 * sent * layout.size(split) * _ring(layout, whole)
        found.append(Exchange(whole, once, 0.0, once))
    return tuple(found)


def _ring(layout: Layout, axes: Axes) -> float:
    """The share of an array that a device sends in an all-to-all."""
    return 1 - 1 / math.prod(layout.sizes[axis] for axis in axes)
