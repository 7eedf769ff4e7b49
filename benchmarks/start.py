"""Seconds from a command to its first training step, with nothing compiled before (cold) and again (warm).

Run: python benchmarks/start.py [--torch-python PATH] [--rounds 3] [--recipe RECIPE] [--json FILE]

`mjx train` is the real command on a recipe whose data are prepared: imports, data, checkpoint folder and all;
its first step is done when metrics.jsonl has its line. The others are the contenders of train_step.py, which
are processes with one model and one batch: the same Llama by mjx, by plain JAX, and by Hugging Face with and
without torch.compile. Each start is a process of its own, and they take turns. Cold means an empty folder of
compiled programs (those of JAX, and those of torch.compile), not an empty page cache: every contender starts
once before the first round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from train_step import CONTENDERS, TORCH

COMMAND = "mjx train"
POLL_SECONDS = 0.01
LONGEST_SECONDS = 600


def environment(programs: Path) -> dict[str, str]:
    """Every library keeps what it compiles in this folder."""
    kept = {
        "XDG_CACHE_HOME": str(programs),  # mjx
        "TORCHINDUCTOR_CACHE_DIR": str(programs / "torch"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return inherited | kept


def command_seconds(recipe: str, folder: Path, programs: Path) -> float:
    """Of `mjx train` until its first line of metrics, when it is sent away."""
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    metrics = run / "metrics.jsonl"
    given = [f"run_dir={run}", f"data.cache_dir={folder / 'data'}", "logging.interval=1"]
    begun = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "mjx", "train", recipe, *given],
        env=environment(programs),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        while not (metrics.exists() and metrics.stat().st_size):
            if process.poll() is not None or time.monotonic() - begun > LONGEST_SECONDS:
                process.kill()
                sys.exit(f"mjx train has made no step: {process.communicate()[1]}")
            time.sleep(POLL_SECONDS)
        seconds = time.monotonic() - begun
        process.kill()
    return seconds


def contender_seconds(name: str, python: str, threads: int, programs: Path) -> float | str:
    """Of a contender of train_step.py until its first loss; or why it cannot start."""
    command = [python, str(Path(__file__).with_name("train_step.py")), "--worker", name]
    command += ["--threads", str(threads), "--warmup", "1"]
    variables = environment(programs)
    if name == "jax":
        variables["JAX_COMPILATION_CACHE_DIR"] = str(programs / "jax")
    begun = time.monotonic()
    with subprocess.Popen(
        command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.monotonic() - begun
        process.kill()
    answer = json.loads(line) if line else {"error": "its process ended"}
    return answer.get("error", seconds)


def measure(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Contender → cold and warm → seconds of each round."""
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="mjx-start-") as name:
        folder = Path(name)

        def start(contender: str, programs: Path) -> float | str:
            if contender == COMMAND:
                return command_seconds(options.recipe, folder, programs)
            python = options.torch_python if contender in TORCH else sys.executable
            return contender_seconds(contender, python, options.threads, programs)

        for contender in options.only.split(","):
            first = start(contender, folder / "before")
            if isinstance(first, str):
                print(f"{contender}: left out, {first}", flush=True)
            else:
                results[contender] = {"cold": [], "warm": []}
        for round_ in range(options.rounds):
            for contender, seconds in results.items():
                programs = folder / f"{contender}-{round_}"
                for kind in ("cold", "warm"):
                    taken = start(contender, programs)
                    assert isinstance(taken, float), taken
                    seconds[kind].append(taken)
                    print(f"{contender}, {kind}: {taken:.1f} s", file=sys.stderr, flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    everyone = ",".join([COMMAND, *CONTENDERS])
    parser.add_argument("--only", default=everyone, help="contenders, by commas, in their order")
    parser.add_argument(
        "--torch-python", default=sys.executable, help="interpreter with torch and transformers"
    )
    parser.add_argument("--recipe", default="configs/gpt/docs.yaml", help="of mjx train")
    parser.add_argument("--threads", type=int, default=2, help="cores that every contender may use")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write all measurements to this file")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - {COMMAND, *CONTENDERS}
    if unknown:
        parser.error(f"--only names {', '.join(sorted(unknown))}; there are {everyone}")
    results = measure(options)
    print(f"{'':16}{'cold s':>8}{'warm s':>8}   median of {options.rounds}")
    for contender, seconds in results.items():
        cells = "".join(f"{statistics.median(values):>8.1f}" for values in seconds.values())
        print(f"{contender:16}{cells}")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
