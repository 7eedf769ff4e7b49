"""`mjx bench kernels`: the kernels as machine code, what their work needs, and what it takes here."""

from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from mjx.errors import InputError
from mjx.gpus.data_sheet import DataSheet, data_sheet, sheet_name
from mjx.gpus.target import gpu_names
from mjx.kernels.capability import Request, choose, current_device
from mjx.kernels.workload import Workload
from mjx.models.backends import OPS
from mjx.plan.kernels import report as kernel_report
from mjx.plan.kernels.roofline import roofline, workloads
from mjx.plan.kernels.times import Times, measure


def bench_kernels(
    *,
    ops: list[str] | None,
    gpu: str | None,
    compile_only: bool,
    rounds: int,
    sweep: bool,
    report: str | None,
) -> None:
    """Print the tables.

    Without a GPU (`compile_only`): registers, memory and instructions of each shipped kernel, compiled here,
    and the roofline of each named workload on `gpu`. With one: measured times, and how near they come.

    Raises:
        InputError: an op or GPU that is not known, no compiler, or no GPU to measure on.
    """
    chosen = list(OPS) if ops is None else ops
    for op in chosen:
        if op not in OPS:
            raise InputError(f"--op {op} is not known (choose from {', '.join(OPS)})")
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=170)
    if not compile_only:
        _measured(console, chosen, gpu, rounds, sweep)
        return
    if sweep:
        raise InputError("--sweep measures, and --compile-only does not: leave one of them out")
    found = compile_all(console, chosen, None if gpu is None else [gpu], anew=report is not None)
    if report is not None:
        Path(report).write_text(kernel_report.to_json(found), encoding="utf-8")
        console.print(f"written to {report}", soft_wrap=True, markup=False)
    _on_paper(console, chosen, gpu or "h100")


def compile_all(console: Console, ops: list[str], gpus: list[str] | None, *, anew: bool) -> dict:
    """The report of what is here now; each kernel printed, and how it differs from the golden report.

    `anew`: compile also what the golden report knows already.
    """
    # What is shipped for one GPU of an architecture is for all: an H200 runs the H100's machine code.
    # Unknown GPUs are refused here, before anything is compiled.
    architectures = None if gpus is None else {data_sheet(gpu).architecture for gpu in gpus}
    golden = kernel_report.golden() if kernel_report.GOLDEN.exists() else {"compilers": None, "programs": {}}
    versions = kernel_report.compilers()
    found = []
    for target in kernel_report.targets():
        other = architectures is not None and data_sheet(target.gpu).architecture not in architectures
        if target.op not in ops or other:
            continue
        examined = kernel_report.examine(target, golden, versions, anew=anew)
        found.append(examined)
        remarks = kernel_report.remarks(examined, golden, versions)
        table = Table(title=target.key, title_justify="left", show_edge=False)
        for heading in (
            "kernel",
            "threads",
            "registers",
            "spilled",
            "shared KiB",
            "blocks/SM",
            "instructions",
        ):
            table.add_column(heading, justify="left" if heading == "kernel" else "right")
        table.add_column("tensor cores")
        table.add_column("")
        for name, figures in examined.kernels.items():
            table.add_row(
                name,
                *(str(figures[field]) for field in ("threads", "registers", "spilled")),
                f"{figures['shared_memory'] / 1024:.1f}",
                *(str(figures[field]) for field in ("resident_blocks", "instructions")),
                ", ".join(f"{count} {name}" for name, count in figures["tensor_core"].items()) or "none",
                "; ".join(remarks[name]) or "as reported",
            )
        console.print(table, "")
    if not found:
        console.print(f"no kernel of {', '.join(ops)} is shipped for {', '.join(gpus or gpu_names())}", "")
    known = sum(not each.compiled for each in found)
    if known:
        console.print(
            f"{known} of {len(found)} programs are those of the report, and so are their compilers: their "
            "figures are the report's (--report compiles all)",
            "",
        )
    return kernel_report.report(found, versions)


def _on_paper(console: Console, ops: list[str], gpu: str) -> None:
    sheet = data_sheet(gpu)
    console.print(f"The least time of each workload on {gpu.upper()}, by its data sheet:", style="bold")
    table = Table(show_edge=False)
    headings = (
        "op",
        "workload",
        "pass",
        "GFLOP",
        "MB",
        "Gexp",
        "products",
        "exps",
        "memory",
        "needs",
        "bound by",
    )
    for heading in headings:
        left = heading in ("op", "workload", "pass", "bound by")
        table.add_column(heading, justify="left" if left else "right")
    table.add_column("published for one H100")
    for op, workload in workloads():
        for backward in (False, True) if op in ops else ():
            work = workload.work(backward=backward)
            least = roofline(work, sheet, workload.dtype)
            anchor = workload.published(backward=backward)
            table.add_row(
                op,
                workload.name,
                "backward" if backward else "forward",
                f"{(work.products + work.vector) / 1e9:.0f}",
                f"{work.bytes / 1e6:.0f}",
                f"{work.exps / 1e9:.2f}",
                *(_milliseconds(part) for part in (least.products + least.vector, least.exps, least.memory)),
                _milliseconds(least.needed),
                least.bound,
                "" if anchor is None else f"{_milliseconds(anchor.seconds)} ({anchor.source})",
            )
    console.print(table)


def _measured(console: Console, ops: list[str], gpu: str | None, rounds: int, sweep: bool) -> None:
    platform, compute_capability = current_device()
    if platform != "gpu":
        raise InputError(
            f"there is no GPU to measure on (JAX runs on {platform} here); --compile-only compiles for one "
            "that is not here"
        )
    kind = jax.devices()[0].device_kind
    name = gpu or sheet_name(kind)
    if name is None:
        raise InputError(
            f"no data sheet of {kind}: --gpu names the nearest (choose from {', '.join(gpu_names())})"
        )
    sheet = data_sheet(name)
    console.print(
        f"on {kind}, against the data sheet of {name.upper()}; medians of {rounds} rounds", style="bold"
    )
    for op, workload in workloads():
        if op not in ops:
            continue
        request = Request(platform=platform, compute_capability=compute_capability, dtype=workload.dtype)
        contenders: dict[str, tuple[str, object]] = {}
        for implementation in OPS[op]().table:
            try:
                choose(op, OPS[op]().table, implementation, request)
                jax.eval_shape(workload.function(implementation), **workload.arguments())
            except InputError as error:
                console.print(f"{workload.name}: {error}")
                continue
            if implementation != "reference":  # its memory grows with the square of the sequence
                contenders[implementation] = (implementation, None)
        if sweep:
            contenders |= _configurations(op, workload, name, compute_capability or 0)
        console.print(_times_table(op, workload, measure(workload, contenders, rounds), sheet), "")


def _configurations(
    op: str, workload: Workload, gpu: str, capability: float
) -> dict[str, tuple[str, object]]:
    """The block configurations for a workload that are known to compile well for this GPU's architecture."""
    golden = kernel_report.golden()["programs"]
    architecture = data_sheet(gpu).architecture
    alike = [known for known in gpu_names() if data_sheet(known).architecture == architecture]
    found: dict[str, tuple[str, object]] = {}
    for implementation in OPS[op]().table:
        for configuration, config in workload.configs(implementation, capability).items():
            keys = [kernel_report.key(op, implementation, configuration, known) for known in alike]
            if any(golden.get(key) for key in keys):  # what is in the report has passed
                found[f"{implementation}: {configuration}"] = (implementation, config)
    return found


def _times_table(op: str, workload: Workload, times: dict[str, Times], sheet: DataSheet) -> Table:
    table = Table(title=f"{op}: {workload.name}", title_justify="left", show_edge=False)
    table.add_column("")
    for part in ("forward", "backward"):
        for heading in (part, "of roofline", "× published"):
            table.add_column(heading, justify="right")
    for name, found in times.items():
        cells = []
        for backward, seconds in ((False, found.forward), (True, found.backward)):
            least = roofline(workload.work(backward=backward), sheet, workload.dtype).needed
            anchor = workload.published(backward=backward)
            cells += [_milliseconds(seconds), f"{least / seconds:.0%}" if seconds else ""]
            cells.append("" if anchor is None or not seconds else f"{seconds / anchor.seconds:.2f}")
        table.add_row(name, *cells)
    return table


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3f} ms"
