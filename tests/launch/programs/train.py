"""A small training-like program for the launch tests: a psum per step, and a fault where the first argument
says so.

`train.py FAULT [MARK]`; MARK is a folder in which each process leaves a file `<process>.pid` once it has made
six steps.
"""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

from mjx.errors import InputError
from mjx.launch import (
    BarrierTimeoutError,
    Preemption,
    RuntimeConfig,
    Watchdog,
    WatchdogConfig,
    barrier,
    detect,
    end_together,
    start,
)

fault = sys.argv[1]
mark = Path(sys.argv[2]) if len(sys.argv) > 2 else None


def main() -> None:
    if fault == "input-before-start":
        raise InputError("batch_size = 3 does not divide 8.")
    if fault == "input-before-start-in-1" and detect(os.environ).process_id == 1:
        raise InputError("data.path = '/nowhere' does not exist.")
    heartbeat = int(os.environ.get("HEARTBEAT_SECONDS", "10"))
    config = RuntimeConfig(
        platform="cpu", cpu_devices=2, initialization_seconds=60, heartbeat_seconds=heartbeat
    )
    if fault == "late-error":  # the config says it all, and the environment nothing
        config = dataclasses.replace(
            config,
            coordinator=os.environ.pop("MJX_COORDINATOR"),
            num_processes=int(os.environ.pop("MJX_NUM_PROCESSES")),
            process_id=int(os.environ.pop("MJX_PROCESS_ID")),
        )
    processes = start(config)
    own = processes.process_id
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    if fault == "none" and own == 0:
        try:
            barrier("all", 0.5)  # process 1 does not come
        except BarrierTimeoutError as error:
            print(error, flush=True)

    mesh = Mesh(np.array(jax.devices()), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    ones = jax.make_array_from_callback(
        (processes.device_count,), sharding, lambda index: np.ones(1, np.float32)
    )
    total = jax.jit(lambda x: jnp.sum(x), out_shardings=NamedSharding(mesh, PartitionSpec()))
    last = 3 if fault in ("none", "late-error") else 100_000
    watchdog_config = WatchdogConfig(stall_seconds=2.0 if fault == "stall" else 60.0)
    with Preemption() as preemption, Watchdog(watchdog_config) as watchdog:
        for step in range(last):
            value = float(total(ones))
            watchdog.beat(step)
            if step == 2:
                print(f"process {own} sum {value}", flush=True)
            if step == 5:
                if mark is not None:
                    (mark / f"{own}.tmp").write_text(str(os.getpid()))
                    (mark / f"{own}.tmp").rename(mark / f"{own}.pid")
                fail(own)
            if preemption.should_stop(step):
                print(f"process {own} stopped after {step} because {preemption.reason}", flush=True)
                break
            time.sleep(0.01)
    if fault == "late-error" and own == 1:
        time.sleep(0.5)
        raise OSError("the last checkpoint could not be written")
    print(f"process {own} done", flush=True)


def fail(own: int) -> None:
    if fault == "error-in-1" and own == 1:
        raise ZeroDivisionError("made up")
    if fault == "error-in-0" and own == 0:
        raise ZeroDivisionError("made up")
    if fault == "error-in-all":
        raise ZeroDivisionError("made up")
    if fault == "input-in-all":
        raise InputError("checkpoint = 'x' has no step 7.")
    if fault == "input-in-1" and own == 1:
        raise InputError("data.path = '/nowhere' does not exist.")
    if fault == "interrupt-in-1" and own == 1:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    if fault == "stall" and own == 1:
        time.sleep(60)
    if fault == "hang-in-0" and own == 0:
        time.sleep(60)  # and process 1 waits for it inside a collective


with end_together():
    main()
