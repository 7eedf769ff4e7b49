"""Runs of the command line in processes of their own, and what they left in their folders."""

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mjx.checkpoint import orbax_store
from mjx.trees import nest

ROOT = Path(__file__).parents[2]

Tree = dict[str, Any]

WORDS = ("mesh", "shard", "token", "loss", "step", "adam", "batch", "scan", "key", "axis")
"""What the texts of these tests are made of."""


def environment(path: str | None = None) -> dict[str, str]:
    """That of a process which finds mjx (and what is in the folder `path`) and computes on the CPU."""
    folders = [path, str(ROOT), os.environ.get("PYTHONPATH")]
    path = os.pathsep.join(folder for folder in folders if folder)
    return {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}


def start_mjx(
    *arguments: object, path: str | None = None, through: Sequence[str] = (), **variables: str
) -> "subprocess.Popen[str]":
    """`mjx ARGUMENTS`, running; `through` is a command that starts it."""
    return subprocess.Popen(
        [*through, sys.executable, "-m", "mjx", *map(str, arguments)],
        env=environment(path) | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def mjx(
    *arguments: object, code: int = 0, timeout: float = 240, path: str | None = None, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """`mjx ARGUMENTS`, which must end with `code`."""
    with start_mjx(*arguments, path=path, **variables) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"mjx {arguments} did not end in {timeout} s:\n{out}\n{err}") from None
    assert process.returncode == code, f"mjx {arguments} ended with {process.returncode}:\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def changed(tree: Tree, **values: object) -> Tree:
    """A recipe with other values; `__` stands for the dot in a key."""
    tree = copy.deepcopy(tree)
    for key, value in values.items():
        *sections, name = key.split("__")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree


def overrides(**values: object) -> list[str]:
    """The same for the command line."""
    return [f"{key.replace('__', '.')}={value}" for key, value in values.items()]


def records(run: Path) -> Iterator[Tree]:
    """The lines of a run's metrics.jsonl."""
    whole = (run / "metrics.jsonl").read_text().split("\n")[:-1]  # a live run may be writing the next
    return map(json.loads, whole)


def losses(run: Path) -> list[tuple[int, float]]:
    """(step, training loss) of each line that has one, in the order of the file."""
    return [(record["step"], record["loss"]) for record in records(run) if "loss" in record]


def validation_losses(run: Path) -> list[tuple[int, float]]:
    """(step, validation loss), likewise."""
    return [(r["step"], r["validation_loss"]) for r in records(run) if "validation_loss" in r]


def wait_for_steps(run: Path, count: int, process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    """Until a live run has logged so many steps."""
    limit = time.monotonic() + seconds
    while not (run / "metrics.jsonl").exists() or len(losses(run)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)


def saved_steps(run: Path) -> list[int]:
    """The steps of the complete checkpoints."""
    return sorted(int(entry.name) for entry in (run / "checkpoints").iterdir() if entry.name.isdecimal())


def saved_arrays(run: Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, by dotted names, on one device."""
    import jax

    folder = run / "checkpoints" / str(step)
    types, _ = orbax_store.read_metadata(folder)
    abstract = nest({name: jax.ShapeDtypeStruct(kind.shape, kind.dtype) for name, kind in types.items()})
    read = orbax_store.named_leaves(orbax_store.read_arrays(folder, abstract))
    return {".".join(name): np.asarray(leaf) for name, leaf in read.items()}


def parameters(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of the model among a checkpoint's arrays."""
    return {name: value for name, value in arrays.items() if name.startswith("parameters.")}


def assert_same_bits(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    """Every array of one is in the other, with the same bits."""
    assert one.keys() == other.keys()
    differing = [name for name in one if one[name].tobytes() != other[name].tobytes()]
    assert not differing
