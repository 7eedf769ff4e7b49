"""What a training step of Llama 3 sends and holds, beside MaxText's and a small hand-written one's.

`python benchmarks/plan.py` compiles three steps for H100 that are not here (`pip install 'mjx[plan]'`):
sequence 8192, one sequence for each GPU, full recomputation. The other two were compiled the same way, with
cuDNN's attention: MaxText 0.2.5 with its default rules, and a small step written by hand for the purpose.

Then it plans 512 GPUs and searches the meshes of 8, and exits with 1 where that takes longer than it may.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mjx.plan.apart import plan
from mjx.plan.read_step import Plan
from mjx.plan.request import PlanRequest
from mjx.plan.search import search
from mjx.trees import to_yaml

STEPS = {
    # preset, nodes, mesh; MaxText's and the hand-written's GB inside of nodes, GB between, GiB of temporaries
    "8B on 64, fsdp 64": ("llama3-8b", 8, {"fsdp": 64}, (None, 43.4, 6.6), (None, 43.4, None)),
    "8B on 64, fsdp 8 × tensor 8": (
        *("llama3-8b", 8, {"fsdp": 8, "tensor": 8}),
        *((243, None, 9.7), (167, 6.1, None)),
    ),
    "70B on 512, fsdp 64 × tensor 8": (
        *("llama3-70b", 64, {"fsdp": 64, "tensor": 8}),
        *((1358, None, 20.5), (831, 53.6, None)),
    ),
}
WIDE = {"fsdp": 64, "tensor": 8}
LIMITS: dict[str, tuple[float, Callable[[], Any]]] = {
    "plan 8B on 512": (40, lambda: _planned("llama3-8b", 64, WIDE)),
    "plan 70B on 512": (60, lambda: _planned("llama3-70b", 64, WIDE)),
    "search the meshes of 8B on 8": (
        *(180, lambda: _with_recipe("llama3-8b", 1, {"fsdp": 8}, search, batch_size=64)),
    ),
}
"""What is done → the seconds that it may take, on two cores."""


def main() -> None:
    """Print the table, then what takes how long."""
    _compare()
    late = False
    for name, (limit, work) in LIMITS.items():
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        late |= seconds > limit
        print(f"{name}: {seconds:.1f} s, {'OVER' if seconds > limit else 'within'} the limit of {limit} s")
    sys.exit(int(late))


def _compare() -> None:
    table = Table(title="Of each GPU, in one step", title_justify="left", show_edge=False, pad_edge=False)
    for heading in ("step", "", "mjx", "closed form", "ratio", "MaxText", "by hand"):
        table.add_column(heading, justify="left" if heading in ("step", "") else "right")
    for name, (preset, nodes, mesh, maxtext, by_hand) in STEPS.items():
        start = time.perf_counter()
        made = _planned(preset, nodes, mesh)
        seconds = time.perf_counter() - start
        node = sum(c.closed_form for c in made.checks if c.axes == ("tensor",)) / 1e9
        network = sum(c.closed_form for c in made.checks if c.axes != ("tensor",)) / 1e9
        figures = (
            ("GB inside of nodes", made.wire_bytes("node") / 1e9, node),
            ("GB between nodes", made.wire_bytes("network") / 1e9, network),
            ("GiB of temporaries", made.memory.allocated / 2**30, made.memory.closed_form / 2**30),
        )
        for row, (what, got, bound) in enumerate(figures):
            others = [_shown(column[row]) for column in (maxtext, by_hand)]
            ratio = f"{got / bound:.3f}" if bound else ""
            table.add_row(name if row == 0 else "", what, _shown(got), _shown(bound), ratio, *others)
        planning = f"planned in {seconds:.1f} s, with {made.peak_memory / 1e9:.2f} GB of memory"
        table.add_row("", planning, "", "", "", "", "", end_section=True)
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=130)).print(table)


def _planned(preset: str, nodes: int, mesh: dict[str, int]) -> Plan:
    return _with_recipe(preset, nodes, mesh, plan, batch_size=8 * nodes)


def _with_recipe(
    preset: str, nodes: int, mesh: dict[str, int], work: Callable[[PlanRequest], Any], *, batch_size: int
) -> Any:
    tree = {
        "model": {"family": "gpt", "preset": preset, "remat": "full", "loss_chunks": 16},
        "data": {"corpus": "python-docs", "sequence_length": 8192},
        "training": {"steps": 1, "batch_size": batch_size},
        "mesh": {"data": 1} | mesh,
        "runtime": {"gpu_memory_fraction": 0.92},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{preset}.yaml"
        path.write_text(to_yaml(tree), encoding="utf-8")
        return work(PlanRequest(recipe=str(path), nodes=nodes))


def _shown(number: float | None) -> str:
    return "" if number is None or number == 0 else f"{number:.1f}"


if __name__ == "__main__":
    main()
