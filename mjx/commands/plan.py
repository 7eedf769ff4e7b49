"""`mjx plan CONFIG`: what a run will need on GPUs that are not here."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from mjx.errors import InputError
from mjx.gpus.toolkit import INSTALL, toolkit
from mjx.launch.gpus import cuda_plugin_installed
from mjx.plan import apart
from mjx.plan.advice import advice
from mjx.plan.report.page import write_page, write_search_page
from mjx.plan.report.terminal import show, show_search
from mjx.plan.request import PlanRequest
from mjx.plan.search import search as search_meshes


def plan(
    path: str, overrides: list[str], asked: dict[str, Any], json_file: str | None, html_file: str | None
) -> None:
    """Compile one recipe for one cluster, and say what it needs."""
    console, request = _console(), _request(path, overrides, asked)
    _check_files(json_file, html_file)
    request.load()  # a mistake in the recipe is said before a process is started
    _note_fallback(console, request, asked)
    with console.status(f"compiling for {request.devices} × {request.gpu}"):
        made = apart.plan(request)
    advised = advice(made, request)
    show(console, made, advised)
    _write_json(console, json_file, made.to_tree())
    if html_file is not None:
        write_page(Path(html_file), made, advised)
        console.print(f"written to {html_file}")


def search(
    path: str,
    overrides: list[str],
    asked: dict[str, Any],
    compiled: int,
    json_file: str | None,
    html_file: str | None,
) -> None:
    """Find the fastest way that fits."""
    console, request = _console(), _request(path, overrides, asked)
    if compiled < 1:
        raise InputError(f"--compile {compiled} must be positive")
    _check_files(json_file, html_file)
    _note_fallback(console, request, asked)
    with console.status("looking at meshes") as status:
        found = search_meshes(request, compiled=compiled, progress=status.update)
    show_search(console, request, found)
    _write_json(console, json_file, found.to_tree())
    if html_file is not None:
        write_search_page(Path(html_file), request, found)
        console.print(f"written to {html_file}")


def _request(path: str, overrides: list[str], asked: dict[str, Any]) -> PlanRequest:
    chosen = {name: value for name, value in asked.items() if value is not None}
    chosen.setdefault("compiler", "gpu" if _can_compile() else "cpu")
    return PlanRequest(recipe=path, overrides=tuple(overrides), **chosen)


def _can_compile() -> bool:
    """Whether XLA's CUDA compiler is installed, with what it calls."""
    try:
        toolkit()
    except InputError:
        return False
    return cuda_plugin_installed()


def _note_fallback(console: Console, request: PlanRequest, asked: dict[str, Any]) -> None:
    if request.compiler == "cpu" and asked["compiler"] is None:
        console.print(
            "XLA's CUDA compiler is not installed, so its CPU backend compiles: arguments are exact, "
            f"temporaries and traffic upper bounds ({INSTALL})\n",
            style="yellow",
            soft_wrap=True,
        )


def _write_json(console: Console, file: str | None, tree: dict[str, Any]) -> None:
    if file is not None:
        Path(file).write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
        console.print(f"written to {file}")


def _check_files(*files: str | None) -> None:
    """Before minutes are spent."""
    for file in files:
        if file is not None and not Path(file).parent.is_dir():
            raise InputError(f"cannot write {file}: there is no folder {Path(file).parent}")


def _console() -> Console:
    console = Console(highlight=False, markup=False)  # brackets are the user's
    if not console.is_terminal:  # a file or a pipe has no width to break lines for
        console = Console(highlight=False, markup=False, width=180)
    return console
