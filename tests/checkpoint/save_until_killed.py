"""A run that saves as fast as it can and is killed, again and again. Prints one JSON line per life.

    python save_until_killed.py FOLDER LIVES SEED

Each life is a fork of this process, which has imported everything and started nothing: a restart that costs
no second of imports. A life checks what the one before left, goes on from there and saves until SIGKILL.
"""

import json
import os
import random
import signal
import sys
import time
import traceback

import jax
import numpy as np

import mjx.checkpoint.orbax_store
from mjx.checkpoint.checkpointer import CheckpointConfig, Checkpointer

mjx.checkpoint.orbax_store.orbax()

ARRAYS, SIZE = 6, 2000


def state_after(step: int) -> dict:
    return {
        f"w{i}": np.random.default_rng([step, i]).standard_normal(SIZE, np.float32) for i in range(ARRAYS)
    }


def live(folder: str, report: int) -> None:
    def tell(kind: str, step: int | None) -> None:
        os.write(report, f"{kind} {step}\n".encode())

    checkpointer = Checkpointer(folder, CheckpointConfig(interval=1, keep_last=2, keep_every=50))
    latest = checkpointer.latest_step()
    if latest is not None:
        target = {f"w{i}": jax.ShapeDtypeStruct((SIZE,), np.float32) for i in range(ARRAYS)}
        restored, data_state = checkpointer.restore(target, latest)
        assert data_state == {"step": latest}
        for name, expected in state_after(latest).items():
            assert np.array_equal(restored[name], expected), f"{name} is not that of step {latest}"
    tell("resumed", latest)
    for step in range((latest or 0) + 1, 10**9):
        state = jax.device_put(state_after(step))
        checkpointer.save(step, state, data_state={"step": step}, config="x: 1", wait=True)
        tell("saved", step)


def main(folder: str, lives: int, seed: int) -> None:
    rng = random.Random(seed)
    duration = 0.2  # of a save, before one was timed
    for _ in range(lives):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                live(folder, writing)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        os.close(writing)
        with os.fdopen(reading, "rb") as lines:
            first, rest = lines.readline().decode().split(), []
            for _ in range(rng.randint(0, 3)):
                started = time.monotonic()
                rest.append(lines.readline().decode().split())
                duration = time.monotonic() - started
            # Anywhere within the next save, however fast the machine is.
            time.sleep(rng.uniform(0.0, 1.2) * duration)
            os.kill(child, signal.SIGKILL)
            rest += [line.split() for line in lines.read().decode().splitlines()]
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(
            json.dumps(
                {
                    "killed": status == -signal.SIGKILL,
                    "resumed": None if not first or first[1] == "None" else int(first[1]),
                    "saved": [int(step) for _, step in filter(None, rest)],
                    "left": sorted(os.listdir(folder)),
                }
            ),
            flush=True,
        )


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
