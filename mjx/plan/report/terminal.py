"""A plan as tables in a terminal."""

import math
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mjx.plan.read_step import Memory, Plan, StepTime
from mjx.plan.report.words import (
    memory_parts,
    one_way,
    outside_closed_form,
    products_of,
    traffic_groups,
    verdict,
)
from mjx.plan.request import PlanRequest, Products
from mjx.plan.search import Search
from mjx.words import mesh_words, percent, readable_bytes, readable_gigabytes, readable_seconds

_BAR = 40
_NEXT = 8
"""Ways that were not compiled, but are listed."""


def show(console: Console, plan: Plan, advice: Iterable[str] = ()) -> None:
    """Print all of it."""
    console.print(f"{plan.recipe} {' '.join(plan.overrides)}".strip(), style="bold", soft_wrap=True)
    console.print(
        f"{plan.devices} × {plan.gpu} ({plan.nodes} node{'s' * (plan.nodes > 1)} of {plan.gpus_per_node}), "
        f"mesh {mesh_words(plan.mesh)}; {plan.parameters:,} parameters, {plan.batch_size} rows of "
        f"{plan.sequence_length} tokens in {plan.microbatches} microbatch{'es' * (plan.microbatches > 1)}, "
        f"remat {plan.remat}\n",
        soft_wrap=True,
    )
    _memory(console, plan.memory)
    _one_way(console, plan.products)
    for sentence in advice:
        console.print(f"  → {sentence}", soft_wrap=True)
    _largest(console, plan.memory)
    _traffic(console, plan)
    _checks(console, plan)
    _time(console, plan)
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    console.print(
        f"lowered in {plan.lowering_seconds:.1f} s, compiled in {plan.compiling_seconds:.1f} s with "
        f"{plan.peak_memory / 1e9:.2f} GB of this machine's memory ({versions})",
        style="dim",
        soft_wrap=True,
    )


def show_search(console: Console, request: PlanRequest, found: Search) -> None:
    """Print what was compiled, and what the closed forms say of the rest."""
    fitting = found.fitting
    console.print(
        f"{request.recipe} on {request.devices} × {request.gpu}: {len(found.candidates)} ways, of which "
        f"{len(fitting)} fit by the closed form; {len(found.results)} compiled\n",
        style="bold",
        soft_wrap=True,
    )
    columns = ("mesh", "microbatches", "remat", "GiB", "products", "NVLink", "network", "exposed", "step", "")
    table = _table("Compiled", *columns)
    table.columns[-1].justify = "left"
    for result in found.results:
        candidate = result.candidate
        name = (mesh_words(candidate.mesh), str(candidate.microbatches), candidate.remat)
        if result.plan is None:
            table.add_row(*name, "", "", "", "", "", "", Text(result.failure), style="dim")
            continue
        memory = result.plan.memory
        said = f"fits, MFU {percent(result.plan.model_flops_utilization)}" if memory.fits else "does not fit"
        row = (*name, f"{memory.needed / 2**30:.1f}", *_parts(result.plan.time), said)
        table.add_row(*row, style=None if memory.fits else "dim")
    console.print(table)
    console.print()
    _one_way(console, request.products)
    done = {result.candidate.overrides for result in found.results}
    table = _table("By the closed form alone", *columns[:-1])
    for candidate in [c for c in fitting if c.overrides not in done][:_NEXT]:
        needed = f"{candidate.estimate.needed / 2**30:.1f}"
        name = (mesh_words(candidate.mesh), str(candidate.microbatches), candidate.remat)
        table.add_row(*name, needed, *_parts(candidate.estimate.time))
    if table.row_count:
        console.print(table)
        for line in products_of(found.candidates[0].estimate.uncounted):
            console.print(f"  not in the closed form: {line}", soft_wrap=True, highlight=False)
        console.print()
    best = next((r for r in found.results if r.plan is not None and r.plan.memory.fits), None)
    if best is None:
        console.print("nothing that was compiled fits: more GPUs, more memory or a smaller batch are needed")
    else:
        console.print(
            f"fastest that fits: {' '.join(best.candidate.overrides)}", style="bold", soft_wrap=True
        )


def _one_way(console: Console, products: Products) -> None:
    if (said := one_way(products)) is not None:
        console.print(f"  {said}\n", soft_wrap=True)


def _parts(time: StepTime) -> tuple[str, ...]:
    parts = (time.compute, time.node, time.network, time.exposed, time.estimate)
    return tuple(map(readable_seconds, parts))


def _table(title: str, *headings: str, left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < left else "right", overflow="fold")
    return table


def _memory(console: Console, memory: Memory) -> None:
    table = _table("Memory of a GPU, at the step's peak", "", "GiB", "")
    table.columns[2].justify = "left"
    for name, size, note in memory_parts(memory):
        bar = "█" * math.ceil(_BAR * size / memory.pool) if memory.pool else ""
        table.add_row(name, f"{size / 2**30:.2f}", Text(f"{bar[:_BAR]} {note}".strip()))
    table.add_section()
    table.add_row("needed", f"{memory.needed / 2**30:.2f}", Text(verdict(memory)), style="bold")
    console.print(table)
    console.print()


def _largest(console: Console, memory: Memory) -> None:
    if not memory.largest:
        return
    table = _table("Largest arrays at that moment", "array", "what", "name", "made by", "MiB", left=4)
    for buffer in memory.largest:
        table.add_row(
            buffer.array,
            f"{buffer.role}, {buffer.part}",
            Text(buffer.name),
            Text(buffer.code),
            f"{buffer.bytes / 2**20:,.1f}",
        )
    console.print(table)
    console.print()


def _traffic(console: Console, plan: Plan) -> None:
    table = _table(
        "Sent by each GPU in a step",
        *("collective", "along", "reach", "part", "asked for by", "times", "GB", "hidden"),
        left=5,
    )
    for group in traffic_groups(plan):
        table.add_row(
            group.kind,
            group.along,
            group.reach,
            group.part,
            Text(group.code),
            f"{group.count:g}",
            f"{group.wire_bytes / 1e9:.3f}",
            "yes" if group.asynchronous else "no",
        )
    table.add_section()
    for reach in ("node", "network"):
        where = {"node": "inside of nodes", "network": "between nodes"}[reach]
        table.add_row(where, "", "", "", "", "", f"{plan.wire_bytes(reach) / 1e9:.3f}", "", style="bold")
    console.print(table)
    for line in plan.decided:
        console.print(f"  {line}", highlight=False, markup=False)
    if not plan.exact_traffic:
        console.print("  a loop of unknown length was counted once: more may be sent")
    if plan.compiler == "cpu":
        console.print("  by XLA's CPU backend, which does not scatter sums: an upper bound")
    console.print()


def _checks(console: Console, plan: Plan) -> None:
    if not plan.checks:
        return
    table = _table("Against the closed form (docs/parallelism.md)", "term", "along", "GB", "step", "ratio")
    table.columns[1].justify = "left"
    for check in plan.checks:
        table.add_row(
            check.name,
            " × ".join(check.axes),
            f"{check.closed_form / 1e9:.3f}",
            f"{check.compiled / 1e9:.3f}",
            f"{check.compiled / check.closed_form:.3f}",
        )
    console.print(table)
    memory = plan.memory
    console.print(
        f"  activations, gradients and temporaries: {readable_bytes(memory.allocated)}, "
        f"{memory.allocated / memory.closed_form:.2f} × the closed form"
    )
    for line in outside_closed_form(plan):
        console.print(f"  not in the closed form: {line}", soft_wrap=True, highlight=False)
    console.print()


def _time(console: Console, plan: Plan) -> None:
    time, flops = plan.time, plan.flops
    again = flops.compiled / flops.model - 1
    table = _table("Time of a step, estimated", "", "", "")
    table.columns[2].justify = "left"
    table.add_row(
        "matrix products",
        readable_seconds(time.compute),
        f"{flops.compiled / 1e12:.1f} TFLOP, of which the model asks for {flops.model / 1e12:.1f} "
        f"({percent(again)} more by recomputation); at {percent(plan.utilization)} of the peak "
        f"({readable_seconds(time.at_peak)} at the peak)",
    )
    table.add_row("NVLink", readable_seconds(time.node), readable_gigabytes(plan.wire_bytes("node")))
    table.add_row("network", readable_seconds(time.network), readable_gigabytes(plan.wire_bytes("network")))
    table.add_row("exposed", readable_seconds(time.exposed), "of these two, nothing runs beside")
    table.add_section()
    rate = plan.tokens / time.estimate
    table.add_row(
        "step",
        readable_seconds(time.estimate),
        f"{rate:,.0f} tokens/s, {rate / plan.devices:,.0f} on each GPU; "
        f"MFU {percent(plan.model_flops_utilization)}",
        style="bold",
    )
    console.print(table)
    for name, calls in flops.kernels.items():
        console.print(f"  {calls:g} calls of {name}, whose FLOPs are not counted")
    console.print()
