"""Runs cases that Megatron-Core and transformers wrote, and compares all that they hold.

```
python tests/parity.py megatron FILE.npz…       # weights w/, gradients g/, inputs in/, outputs out/, config
python tests/parity.py huggingface DIR…         # config.json, model.safetensors, io.npz (in/, out/), keys.txt
```

One row per case: outputs (logits, hidden states, losses per token), losses, every gradient, and the weights
there and back through the name map; each cell has the largest absolute difference and, in parentheses, the
relative one that is held against the limit. Below the table: what differs, worst first, and why a case is not
supported.

Exit code: 0 all equal; 1 a case differs or broke; 3 the others are equal, and some are not supported (0 with
`--allow-unsupported`); 2 the command line is wrong.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from oracles import huggingface, megatron
from oracles.difference import LIMITS, Difference, Limits
from oracles.report import Report, worst
from rich.console import Console
from rich.markup import escape
from rich.table import Table

COMPARE = {"megatron": megatron.compare, "huggingface": huggingface.compare}
MOST = 10
"""Sentences that are printed of one case, without --all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    limits = dataclasses.replace(LIMITS, **dict(options.limit))
    reports = [COMPARE[options.library](path, limits) for path in options.paths]
    console.print(_table(reports))
    for report in reports:
        _print_details(console, report, None if options.all else MOST)
    counts = {result: sum(r.result == result for r in reports) for result in _COLORS}
    console.print(", ".join(f"{count} {result}" for result, count in counts.items() if count))
    if counts["differs"] or counts["broke"]:
        return 1
    return 3 if counts["not supported"] and not options.allow_unsupported else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parity.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", choices=COMPARE)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        type=_limit,
        metavar="NAME=VALUE",
        help="outputs=1e-5: absolute, or of the spread where that is more than 1; loss=1e-6: relative; "
        "gradients=1e-4: relative to the tensor's largest entry; noise=1e-8: gradients apart by less are "
        "equal; rounding=3: what is beyond these may be so many times as far apart as it moves when every "
        "weight is rounded differently (0: it may not)",
    )
    parser.add_argument(
        "--allow-unsupported", action="store_true", help="exit with 0 where only that is left"
    )
    parser.add_argument("--all", action="store_true", help="print every difference of a case, not ten")
    return parser


def _limit(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    known = [field.name for field in dataclasses.fields(Limits)]
    if name not in known:
        raise argparse.ArgumentTypeError(f"{name!r} is no limit (choose from {', '.join(known)})")
    return name, float(value)


_COLORS = {"equal": "green", "differs": "red", "broke": "red", "not supported": "yellow"}


def _table(reports: Sequence[Report]) -> Table:
    table = Table(show_edge=False)
    for heading in ("case", "result"):
        table.add_column(heading, no_wrap=True)
    for heading in ("outputs", "losses", "gradients"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("nearest to its limit, or furthest beyond", overflow="fold")
    for report in reports:
        color = _COLORS[report.result]
        compared = report.compared
        furthest = worst(compared.differences())
        table.add_row(
            escape(report.name),
            f"[{color}]{report.result}[/]",
            *(_cell(differences) for differences in (compared.outputs, compared.losses, compared.gradients)),
            "" if furthest is None else escape(_place(furthest)),
        )
    return table


def _place(furthest: Difference) -> str:
    return f"{furthest.of_limit:.2g}× the limit: {furthest.name}{furthest.where}"


def _cell(differences: Sequence[Difference]) -> str:
    if not differences:
        return "–"
    absolute = max(differences, key=lambda each: each.absolute).absolute
    furthest = max(differences, key=lambda each: each.of_limit)
    count = f"{len(differences)}× " if len(differences) > 1 else ""
    return f"{count}{absolute:.1e} ({furthest.relative:.1e})"


def _print_details(console: Console, report: Report, most: int | None) -> None:
    for note in report.compared.notes:
        console.print(f"{escape(report.name)}: {escape(note)}")
    sentences = report.sentences()
    if not sentences:
        return
    console.print(f"[{_COLORS[report.result]}]{escape(report.name)}[/]: {report.result}: ", end="")
    console.print("\n    ".join(map(escape, sentences[:most])))
    if most is not None and len(sentences) > most:
        console.print(f"    … and {len(sentences) - most} more (--all)")


if __name__ == "__main__":
    sys.exit(main())
