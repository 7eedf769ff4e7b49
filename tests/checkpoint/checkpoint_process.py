"""One process of several: what the checkpointer does when a run has more than one.

python checkpoint_process.py ROLE FOLDER PORT PROCESSES INDEX DEVICES
"""

import hashlib
import resource
import sys
from pathlib import Path

import jax

role, folder, port, processes, index, devices = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:7])
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", devices)
if processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{port}", processes, index, initialization_timeout=60, shutdown_timeout_seconds=10
    )

import numpy as np  # noqa: E402
from jax.sharding import AxisType, NamedSharding  # noqa: E402

from mjx.checkpoint.checkpointer import CheckpointConfig, Checkpointer  # noqa: E402
from mjx.checkpoint.run_folder import RunFolder  # noqa: E402
from mjx.checkpoint.weights import load_weights, save_weights  # noqa: E402
from mjx.errors import InputError  # noqa: E402

SPECS = {"a": ("fsdp", "tensor"), "b": (None, "tensor"), "replicated": (), "step": ()}


def say(*words: object) -> None:
    print(index, *words, flush=True)


def mesh_of(*shape: int) -> jax.sharding.Mesh:
    return jax.make_mesh(shape, ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)


def abstract_on(mesh: jax.sharding.Mesh) -> dict:
    shapes = {"a": (64, 32), "b": (3, 16, 8), "replicated": (50,), "step": ()}
    specs = SPECS | {"b": (None, "tensor")}
    return {
        name: jax.ShapeDtypeStruct(
            shape,
            np.int32 if name == "step" else np.float32,
            sharding=NamedSharding(mesh, jax.P(*specs[name])),
        )
        for name, shape in shapes.items()
    }


def values(scale: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    drawn = {"a": (64, 32), "b": (3, 16, 8), "replicated": (50,)}
    named = {
        name: np.float32(scale) * rng.standard_normal(shape, np.float32) for name, shape in drawn.items()
    }
    return named | {"step": np.int32(scale)}


def state_on(mesh: jax.sharding.Mesh, scale: float) -> dict:
    return {
        name: jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda slices, name=name: values(scale)[name][slices]
        )
        for name, leaf in abstract_on(mesh).items()
    }


def check(state: dict) -> None:
    """Every shard that lies here has the values that belong there, bit for bit."""
    expected = values(float(state["step"].addressable_shards[0].data))
    for name, array in state.items():
        for shard in array.addressable_shards:
            assert np.asarray(shard.data).tobytes() == np.asarray(expected[name][shard.index]).tobytes(), name


def digest(state: dict) -> str:
    check(state)
    return hashlib.sha256(b"".join(np.asarray(state[name]).tobytes() for name in sorted(state))).hexdigest()


def save() -> None:
    mesh = mesh_of(2, 2)
    state = state_on(mesh, 1.0)
    advance = jax.jit(
        lambda s: jax.tree.map(lambda x: x * 2, s),
        donate_argnums=0,
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract_on(mesh)),
    )
    with (
        RunFolder(folder) as run,
        Checkpointer(run.checkpoints, CheckpointConfig(keep_last=2)) as checkpointer,
    ):
        run.write_config("x: 1\n")
        say("lock", run.claimed)
        for step in (1, 2, 3):
            checkpointer.save(step, state, data_state={"step": step}, config="x: 1\n")
            state = advance(state)
        checkpointer.wait()
        say("latest", checkpointer.latest_step())
        restored, _ = checkpointer.restore(abstract_on(mesh_of(1, 4)))
        check(restored)
        save_weights(folder / "weights", restored, {"x": 1})
        try:
            Checkpointer(folder / "elsewhere").restore(abstract_on(mesh))
        except InputError as error:
            say("refused", error)


def restore() -> None:
    for shape in ((4, 1), (1, 4), (2, 2)):
        restored, data_state = Checkpointer(folder / "checkpoints").restore(abstract_on(mesh_of(*shape)), 3)
        say("restored", digest(restored), data_state)
    say("restored", digest(load_weights(folder / "weights", abstract_on(mesh_of(4, 1)))), {"step": 3})


def full_disk_on_one() -> None:
    """The disk of process 1 alone refuses: no half of the step must be taken for the whole."""
    state = state_on(mesh_of(2, 2), 1.0)
    checkpointer = Checkpointer(folder, CheckpointConfig(timeout=3))
    checkpointer.save(1, state, data_state={}, config="", wait=True)
    if index == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
    checkpointer.save(2, state, data_state={}, config="")
    try:
        checkpointer.wait()
        say("saved")
    except Exception as error:
        say("failed", type(error).__name__, error)


def refused_on_primary() -> None:
    if index == 0:
        other = RunFolder(folder / "taken")
        other.path.mkdir()
        other._lock.acquire()
    try:
        RunFolder(folder / "taken").claim()
    except InputError as error:
        say("refused", error)


{"save": save, "restore": restore, "full": full_disk_on_one, "refused": refused_on_primary}[role]()
if role == "full":
    refused_on_primary()
