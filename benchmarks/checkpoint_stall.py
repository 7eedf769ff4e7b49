"""How long a save holds up training.

    python benchmarks/checkpoint_stall.py [--megabytes 300] [--devices 1] [--folder DIR]

Trains a small model with a state of the given size (matrix products, donated state), saves in the middle and
prints for each save how long it kept the loop, and what the steps until its end lost to the writer. The last
line is what matters: both in steps.
"""

import argparse
import shutil
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp

from mjx.checkpoint.checkpointer import CheckpointConfig, Checkpointer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument(
    "--megabytes", type=int, default=300, help="size of the state: parameters and two moments"
)
parser.add_argument(
    "--devices", type=int, default=1, help="CPU devices; elsewhere all that are there are used"
)
parser.add_argument("--tokens", type=int, default=256, help="tokens per step, for its length")
parser.add_argument("--saves", type=int, default=4)
parser.add_argument(
    "--folder", help="where to write: the disk that is measured (default: a temporary folder)"
)
options = parser.parse_args()
jax.config.update("jax_num_cpu_devices", options.devices)

WIDTH = 1024
LAYERS = max(1, round(options.megabytes * 1e6 / (3 * 4 * WIDTH * WIDTH)))

mesh = jax.make_mesh((len(jax.devices()),), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
sharded = jax.sharding.NamedSharding(mesh, jax.P(None, "fsdp"))
replicated = jax.sharding.NamedSharding(mesh, jax.P())


def loss(layers: jax.Array, x: jax.Array) -> jax.Array:
    def block(x: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
        return x + jnp.tanh(x @ w), None

    return jnp.mean(jax.lax.scan(jax.checkpoint(block), x, layers)[0] ** 2)


def train_step(state: dict, x: jax.Array) -> dict:
    gradient = jax.grad(loss)(state["params"], x)
    mu = 0.9 * state["mu"] + 0.1 * gradient
    nu = 0.99 * state["nu"] + 0.01 * gradient**2
    params = state["params"] - 1e-3 * mu * jax.lax.rsqrt(nu + 1e-8)
    return {"params": params, "mu": mu, "nu": nu, "step": state["step"] + 1}


shardings = {"params": sharded, "mu": sharded, "nu": sharded, "step": replicated}
step_fn = jax.jit(train_step, donate_argnums=0, out_shardings=shardings)
weights = jax.random.normal(jax.random.key(0), (LAYERS, WIDTH, WIDTH)) * 0.01
state = jax.device_put(
    {"params": weights, "mu": weights + 0, "nu": weights**2, "step": jnp.int32(0)}, shardings
)
batch = jax.device_put(jax.random.normal(jax.random.key(1), (options.tokens, WIDTH)), replicated)


def timed_step() -> float:
    global state
    started = time.monotonic()
    state = jax.block_until_ready(step_fn(state, batch))
    return time.monotonic() - started


for _ in range(2):
    timed_step()
usual = statistics.median(timed_step() for _ in range(8))
size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
print(f"{jax.devices()[0].device_kind} x {len(jax.devices())}, state {size / 1e6:.0f} MB, step {usual:.3f} s")

folder = tempfile.mkdtemp(dir=options.folder)
stalls, slowdowns = [], []
try:
    with Checkpointer(folder, CheckpointConfig(keep_last=2)) as checkpointer:
        checkpointer.prepare(0)
        for number in range(options.saves):
            stall = checkpointer.save(number, state, data_state={"step": number}, config="")
            started = time.monotonic()
            steps = [timed_step()]
            while checkpointer._pending is not None and not checkpointer._pending.done():
                steps.append(timed_step())
            written = time.monotonic() - started
            slowdown = sum(steps) - len(steps) * usual
            stalls.append(stall)
            slowdowns.append(slowdown)
            print(
                f"save {number}: stall {stall * 1e3:6.1f} ms, {len(steps)} steps in the {written:.2f} s "
                f"until it was on disk, which took {slowdown * 1e3:+7.1f} ms longer than without"
            )
            for _ in range(3):
                timed_step()
finally:
    shutil.rmtree(folder, ignore_errors=True)
stall, slowdown = statistics.median(stalls), statistics.median(slowdowns)
print(
    f"median: stall {stall / usual:.2f} steps; with the writer's share {(stall + slowdown) / usual:.2f} steps"
)
