"""The figures of a plan in words and rows, for the terminal and the page."""

import dataclasses
from collections.abc import Sequence

from mjx.plan.read_step import Memory, Plan
from mjx.plan.request import Products
from mjx.words import readable_gigabytes

_SHOWN = 1e-4
"""Share of all that is sent, under which collectives are summed up in one row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrafficGroup:
    """Collectives of one kind, along the same axes, for the same line of code."""

    kind: str
    along: str
    reach: str
    part: str
    code: str
    count: float
    wire_bytes: float
    asynchronous: bool


def memory_parts(memory: Memory) -> list[tuple[str, float, str]]:
    """(what, bytes, a remark) of each part."""
    bound = "" if memory.exact else "an upper bound, by XLA's CPU backend; with what is kept, and gradients"
    parts = [
        ("parameters", memory.parameters, ""),
        ("optimizer", memory.optimizer, ""),
        ("batch", memory.batch, ""),
        ("gradients", memory.gradients, ""),
        ("kept for the backward pass", memory.kept, ""),
        ("temporaries", memory.temporaries, bound),
        ("cuDNN's workspace", memory.workspace, "asked for at run time"),
    ]
    return [part for part in parts if part[1]]


def one_way(products: Products) -> str | None:
    """What a plan leaves open that was compiled with one way to multiply."""
    if products == "both":
        return None
    return f"every product by {products}: where measuring chooses otherwise, more may be needed"


def verdict(memory: Memory) -> str:
    """Whether it fits, with the sum."""
    pool, needed = memory.pool / 2**30, memory.needed / 2**30
    share = memory.pool / memory.total
    words = f"JAX takes {pool:.2f} ({share:.2f} of {memory.total / 2**30:.2f})"
    outside = (memory.total - memory.pool) / 2**30
    if memory.pool + memory.reserve > memory.total:
        return (
            f"does not fit: {words}, which leaves {outside:.2f}; CUDA, NCCL and kernels need about "
            f"{memory.reserve / 2**30:.2f}"
        )
    if not memory.fits and not memory.exact:
        closed = (needed * 2**30 - memory.allocated + memory.closed_form) / 2**30
        return (
            f"not known to fit: {words}, {needed - pool:.2f} less than this upper bound; by the closed form "
            f"{closed:.2f} are needed"
        )
    if not memory.fits:
        return f"does not fit: {words}, {needed - pool:.2f} too few"
    return f"fits: {words}, {pool - needed:.2f} to spare"


def traffic_groups(plan: Plan) -> list[TrafficGroup]:
    """What is sent, largest first; all that is small in one row."""
    groups: dict[tuple, TrafficGroup] = {}
    for row in plan.traffic:
        along = " × ".join(row.axes) or f"{row.group_size} devices"
        key = (row.kind, along, row.reach, row.part, row.code, row.asynchronous)
        old = groups.get(key)
        groups[key] = TrafficGroup(
            kind=row.kind,
            along=along,
            reach=row.reach,
            part=row.part,
            code=row.code,
            count=row.count + (old.count if old else 0),
            wire_bytes=row.wire_bytes + (old.wire_bytes if old else 0),
            asynchronous=row.asynchronous,
        )
    limit = _SHOWN * sum(group.wire_bytes for group in groups.values())
    shown = sorted((g for g in groups.values() if g.wire_bytes >= limit), key=lambda g: -g.wire_bytes)
    small = [group for group in groups.values() if group.wire_bytes < limit]
    if small:
        shown.append(
            TrafficGroup(
                kind=f"{len(small)} small ones",
                along="",
                reach="",
                part="",
                code="",
                count=sum(group.count for group in small),
                wire_bytes=sum(group.wire_bytes for group in small),
                asynchronous=all(group.asynchronous for group in small),
            )
        )
    return shown


def outside_closed_form(plan: Plan) -> list[str]:
    """The collectives that no term of the closed form stands for, and the products that none knows."""
    rows = sorted((row for row in plan.traffic if row.term is None), key=lambda row: -row.wire_bytes)
    collectives = [
        f"{row.kind} of {_short(row.arrays)} along {' × '.join(row.axes) or f'{row.group_size} devices'}, "
        f"{readable_gigabytes(row.wire_bytes)} ({row.code})"
        for row in rows
        if row.wire_bytes
    ]
    return collectives + products_of(plan.uncounted)


def products_of(weights: Sequence[str]) -> list[str]:
    """What the closed form leaves out of activations and FLOPs."""
    return [f"products with {weight}" for weight in weights]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"
