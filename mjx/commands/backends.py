"""`mjx backends`: which implementations there are, what each can do, and which is chosen here."""

import dataclasses

from rich.console import Console
from rich.table import Table

from mjx.errors import InputError
from mjx.kernels.capability import Request, choose, current_device
from mjx.models.backends import OPS, Op


def backends() -> None:
    """Print a table for each op."""
    platform, compute_capability = current_device()
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe has no width to break lines for
        console = Console(highlight=False, width=160)
    generation = "" if compute_capability is None else f", compute capability {compute_capability}"
    console.print(f"here: {platform}{generation}\n", style="bold")
    for name, load in OPS.items():
        op = load()
        console.print(table(name, op))
        for dtype in ("float32", "bfloat16"):
            request = Request(platform=platform, compute_capability=compute_capability, dtype=dtype)
            console.print(f"auto takes, for {dtype}: {', '.join(choices(name, op, request))}")
        console.print()


def table(name: str, op: Op) -> Table:
    """Rows are what can be asked for, columns the implementations."""
    shown = Table(title=name, title_justify="left")
    shown.add_column("")
    for implementation in op.table:
        shown.add_column(implementation)
    shown.add_row("platforms", *(", ".join(row.platforms) for row in op.table.values()))
    if any(row.compute_capability for row in op.table.values()):
        oldest = (row.compute_capability for row in op.table.values())
        shown.add_row("oldest GPU", *("" if one is None else f"sm_{one * 10:.0f}" for one in oldest))
    if any(row.newest_compute_capability for row in op.table.values()):
        newest = (row.newest_compute_capability for row in op.table.values())
        shown.add_row("newest GPU", *("" if one is None else f"sm_{one * 10:.0f}" for one in newest))
    shown.add_row("dtypes", *(", ".join(row.dtypes) for row in op.table.values()))
    for size in dict.fromkeys(size for row in op.table.values() for size in row.sizes):
        shown.add_row(size, *(str(row.sizes.get(size, "any")) for row in op.table.values()))
    for feature in op.features:
        shown.add_row(feature, *("yes" if feature in row.features else "–" for row in op.table.values()))
    return shown


def choices(name: str, op: Op, request: Request) -> list[str]:
    """What `auto` takes for a plain call, and for which single features it takes another."""

    def chosen(features: frozenset[str]) -> str:
        try:
            return choose(name, op.table, "auto", dataclasses.replace(request, features=features))
        except InputError:
            return "none"

    plain = chosen(frozenset())
    others: dict[str, list[str]] = {}
    for feature in op.features:
        others.setdefault(chosen(frozenset({feature})), []).append(feature)
    others.pop(plain, None)
    return [plain, *(f"{other} with {' / '.join(features)}" for other, features in others.items())]
