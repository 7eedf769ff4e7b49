"""Kills a run again and again, and checks that it ends as if nothing had happened.

    python benchmarks/kill_test.py RECIPE [key.path=value ...] [--kills 20] [--folder DIR] [--seed 0]

Trains the recipe twice on the same machine: once undisturbed, and once with `kill -9` at random moments:
while it starts, between two steps, in the middle of a save. Every start after a kill is the same command. At
the end every loss that was logged, each exactly once, and every array of the last checkpoint must have the
same bits in both runs. Give it short steps and a small checkpoint.interval, so that saves are cut short, e.g.

    python benchmarks/kill_test.py configs/gpt/docs.yaml training.steps=200 checkpoint.interval=3

The last line says how it ended; the exit code is 1 where a bit differs.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from mjx.checkpoint import orbax_store
from mjx.checkpoint.names import named_leaves
from mjx.trees import nest

START_SECONDS = 600


def command(options: argparse.Namespace, run: Path) -> list[str]:
    """Every loss is logged, so that all of them can be compared."""
    given = [*options.overrides, f"run_dir={run}", "logging.interval=1", "logging.progress=false"]
    return [sys.executable, "-m", "mjx", "train", options.recipe, *given]


def losses(run: Path) -> list[tuple[int, float]]:
    """(step, training loss) of each whole line of metrics.jsonl."""
    file = run / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []
    records = map(json.loads, lines)
    return [(record["step"], record["loss"]) for record in records if "loss" in record]


def entries(run: Path) -> list[str]:
    """What is in the folder of checkpoints."""
    folder = run / "checkpoints"
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []


def newest(run: Path) -> int:
    """The newest complete checkpoint."""
    return max((int(name) for name in entries(run) if name.isdecimal()), default=0)


def arrays(run: Path) -> dict[str, np.ndarray]:
    """The arrays of the newest checkpoint."""
    folder = run / "checkpoints" / str(newest(run))
    types, _ = orbax_store.read_metadata(folder)
    abstract = nest({name: jax.ShapeDtypeStruct(kind.shape, kind.dtype) for name, kind in types.items()})
    read = named_leaves(orbax_store.read_arrays(folder, abstract))
    return {".".join(name): np.asarray(leaf) for name, leaf in read.items()}


def finish(options: argparse.Namespace, run: Path) -> float:
    """One start that nobody disturbs; its seconds."""
    began = time.monotonic()
    ended = subprocess.run(command(options, run), capture_output=True, encoding="utf-8", check=False)
    if ended.returncode:
        sys.exit(f"mjx train ended with {ended.returncode}:\n{ended.stderr}")
    return time.monotonic() - began


def live_and_die(options: argparse.Namespace, run: Path, life: int, steps: int, draw: random.Random) -> None:
    """One start, killed at a random moment; says where."""
    begun = newest(run)
    starting = draw.random() < 0.15
    left = steps - begun
    ahead = draw.randint(1, max(1, min(left - 1, 2 * left // (options.kills - life + 1))))
    delay = draw.uniform(0, 4) if starting else draw.uniform(0, 0.1)
    with subprocess.Popen(command(options, run), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        limit = time.monotonic() + START_SECONDS
        while not starting and process.poll() is None:
            done = losses(run)
            if done and done[-1][0] >= begun + ahead and newest(run) >= begun:
                break
            if time.monotonic() > limit:
                process.kill()
                sys.exit(f"no step in {START_SECONDS} s: {process.communicate()[0]}")
            time.sleep(0.02)
        time.sleep(delay)
        process.kill()
        said = process.communicate()[0].decode(errors="replace")
    if process.returncode > 0:
        sys.exit(f"life {life} ended by itself with {process.returncode}:\n{said}")
    unfinished = [name for name in entries(run) if "tmp" in name or "deleting" in name]
    logged = losses(run)[-1][0] if losses(run) else 0
    print(
        f"life {life}: from step {begun}, killed {'while starting' if starting else f'after step {logged}'}"
        + (f", cut short: {', '.join(unfinished)}" if unfinished else ""),
        flush=True,
    )


def main() -> None:
    """Both runs, and the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="for both runs (a temporary folder)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_intermixed_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="kill_test-"))).absolute()
    plain, killed = folder / "undisturbed", folder / "killed"
    seconds = finish(options, plain)
    expected = losses(plain)
    steps = expected[-1][0]
    print(f"undisturbed: {steps} steps in {seconds:.0f} s, last loss {expected[-1][1]!r}", flush=True)
    draw = random.Random(options.seed)
    for life in range(1, options.kills + 1):
        live_and_die(options, killed, life, steps, draw)
    finish(options, killed)
    found = losses(killed)
    print(f"killed {options.kills} times: {found[-1][0]} steps, last loss {found[-1][1]!r}")
    one, other = arrays(plain), arrays(killed)
    differing = [name for name in one if name not in other or one[name].tobytes() != other[name].tobytes()]
    if found != expected or one.keys() != other.keys() or differing:
        wrong = [pair for pair in zip(expected, found, strict=False) if pair[0] != pair[1]][:3]
        sys.exit(f"NOT the same: losses {wrong} of {len(found)}, arrays {differing[:3]}")
    count = f"{len(found)} losses, each logged once, and {len(one)} arrays of step {newest(killed)}"
    print(f"the same bits: {count}")


if __name__ == "__main__":
    main()
