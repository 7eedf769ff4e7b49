"""Contenders of a benchmark that work in turns, so that what disturbs a shared machine disturbs all alike.

Each is a process of its own, which writes a line of JSON when it is ready, and one for each line that it
reads.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Answer = dict[str, Any]


def in_turns(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    *,
    pause: float = 0.3,
    ready: Callable[[str, Answer], None] = lambda name, answer: None,
) -> dict[str, list[Answer]]:
    """Contender → its answer in each round; one that answers first with an "error" is left out.

    Args:
        commands: Of their processes.
        rounds: In each of which every one works once.
        pause: Seconds before a turn: idle threads stop spinning.
        ready: Told of each one's first answer, before the next one starts: compiling takes all cores.
    """
    processes: dict[str, subprocess.Popen[str]] = {}
    answers: dict[str, list[Answer]] = {}

    def answer(name: str) -> Answer:
        process = processes[name]
        line = process.stdout.readline() if process.stdout else ""
        return json.loads(line) if line else {"error": f"its process ended with code {process.wait()}"}

    try:
        for name, command in commands.items():
            processes[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
            )
            first = answer(name)
            if "error" in first:
                print(f"{name}: left out, {first['error']}")
                continue
            ready(name, first)
            answers[name] = []
        for _ in range(rounds):
            for name, said in answers.items():
                time.sleep(pause)
                pipe = processes[name].stdin
                assert pipe is not None
                pipe.write("\n")
                pipe.flush()
                said.append(answer(name))
    finally:
        for process in processes.values():
            process.communicate()
    return answers


def work(threads: int, prepare: Callable[[], tuple[Answer, Callable[[], Answer]]]) -> None:
    """Be a contender: what `prepare` imports and compiles has so many cores; it gives the first answer, and
    what is done in every turn."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    # Before the libraries start their thread pools, whose sizes follow from it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        first, turn = prepare()
    except ImportError as error:
        print(json.dumps({"error": str(error)}), file=out, flush=True)
        return
    print(json.dumps(first), file=out, flush=True)
    for _ in sys.stdin:
        print(json.dumps(turn()), file=out, flush=True)
