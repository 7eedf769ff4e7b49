"""The contract of a family: what must hold for each of its variants.

`python tests/families/contract.py [FAMILY …]` prints a table of variants × checks. A new family needs a file
`NAME.py` beside this one, whose `tiny()` gives its variants.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import importlib
import time
from collections.abc import Callable, Sequence

import jax
from hurry import compile_in_a_hurry
from rich.console import Console
from rich.live import Live
from rich.table import Table

from families import descriptions, numbers, training
from families.variants.variant import NotApplicableError, Variant
from mjx.models import FAMILIES

Check = Callable[[Variant], None]

CHECKS: dict[str, Check] = {
    "same numbers on a mesh of three axes": training.mesh,
    "same numbers on every mesh": training.meshes,
    "resumes bit by bit, and on another mesh": training.resuming,
    "two processes are one": training.two_processes,
    "remat": numbers.remat,
    "microbatches": numbers.microbatches,
    "packed documents are separate ones": numbers.packing,
    "padding changes nothing": numbers.padding,
    "every parameter has gradients and axis names": numbers.gradients,
    "decoding is the whole pass": numbers.decoding,
    "Hugging Face there and back": descriptions.huggingface,
    "Megatron there and back": descriptions.megatron,
    "parameters": descriptions.parameter_count,
    "FLOPs": descriptions.flops,
    "mjx explain": descriptions.explanation,
    "mjx plan": descriptions.planning,
}
OF_ONE_VARIANT = (training.meshes, training.two_processes, descriptions.planning)
"""Checks of the machinery around the model: the first variant of a family shows it, or one that says so."""
OPTIMIZED = (descriptions.planning,)
"""Checks of programs as they are compiled for users; the others are compiled in a hurry."""


def variants(family: str) -> Sequence[Variant]:
    """Those of a family.

    Raises:
        ModuleNotFoundError: it has none.
    """
    return importlib.import_module(f"families.{family}").tiny()


def rows(family: str) -> list[tuple[Variant, list[str]]]:
    """Each variant of a family, and the checks that it stands for."""
    all_ = variants(family)
    in_processes = next((variant for variant in all_ if variant.in_processes), all_[0])

    def stands_for(variant: Variant, check: Check) -> bool:
        if check is training.two_processes:
            return variant is in_processes
        return check not in OF_ONE_VARIANT or variant is all_[0]

    return [
        (variant, [name for name, check in CHECKS.items() if stands_for(variant, check)]) for variant in all_
    ]


def hold(variant: Variant, name: str) -> None:
    """Raise if this check does not hold.

    Raises:
        NotApplicableError: the variant does not have what it is about.
    """
    check = CHECKS[name]
    compile_in_a_hurry(check not in OPTIMIZED)
    check(variant)


def _cell(variant: Variant, name: str) -> tuple[str, str | None]:
    """What stands in the table, and what went wrong."""
    start = time.perf_counter()
    try:
        hold(variant, name)
    except NotApplicableError:
        return "not applicable", None
    except Exception as error:
        found = f"{variant.name}, {name}: {type(error).__name__}: {error}"
        return f"[red]failed[/] {time.perf_counter() - start:.1f} s", found
    return f"ok {time.perf_counter() - start:.1f} s", None


def _print_table(families: Sequence[str]) -> int:
    """Of these families; returns how many checks failed."""
    jax.config.update("jax_num_cpu_devices", 8)
    console, failures, start = Console(), [], time.perf_counter()
    for family in families:
        shown = rows(family)
        table = Table("", *(variant.name for variant, _ in shown), title=family)
        with Live(table, console=console):
            for name in CHECKS:
                cells = [
                    _cell(variant, name) if name in its else ("by another", None) for variant, its in shown
                ]
                table.add_row(name, *(text for text, _ in cells))
                failures += [failure for _, failure in cells if failure]
    for failure in failures:
        console.print(failure, markup=False)
    console.print(f"{len(failures)} failed, {time.perf_counter() - start:.0f} s")
    return len(failures)


ALL = [(variant, name) for family in FAMILIES for variant, its in rows(family) for name in its]
"""Every check of every variant of every family."""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("families", metavar="FAMILY", nargs="*", help="all of them, if none is named")
    sys.exit(min(_print_table(parser.parse_args().families or list(FAMILIES)), 1))
