"""Checks of some steps of training: what the result does not depend on."""

import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from families.variants.variant import Variant
from mjx.checkpoint.checkpointer import Checkpointer
from mjx.checkpoint.names import named_leaves
from mjx.launch import launch_local
from mjx.sharding import MeshConfig, ShardingConfig, build_mesh
from mjx.training.optimizer import OptimizerConfig
from mjx.training.schedule import ScheduleConfig
from mjx.training.state import TrainState
from mjx.training.trainer import Trainer

STEPS = 5
ONE = "one device"
MESHES = {
    "fsdp 8": MeshConfig(data=1, fsdp=8),
    "data 2 × tensor 4": MeshConfig(data=2, tensor=4),
    "data 2 × fsdp 2 × tensor 2": MeshConfig(data=2, fsdp=2, tensor=2),
    "data 2 × context 2 × tensor 2": MeshConfig(data=2, context=2, tensor=2),
    "data 2 × context 4, zigzag": MeshConfig(data=2, context=4),
    "fsdp 2 × expert 2 × tensor 2": MeshConfig(data=1, fsdp=2, expert=2, tensor=2),
}

Saved = dict[str, np.ndarray]
"""All arrays of a state, by dotted names."""


@functools.cache
def trainer(variant: Variant, mesh: str) -> Trainer:
    """Without dropout, which draws other numbers on other meshes."""
    return Trainer(
        variant.config,
        steps=STEPS,
        batch=variant.arrays(),
        mesh=build_mesh(MESHES[mesh]) if mesh != ONE else build_mesh(MeshConfig(), jax.devices()[:1]),
        sharding=ShardingConfig(zigzag="zigzag" in mesh),
        optimizer=OptimizerConfig(),
        schedule=ScheduleConfig(learning_rate=3e-3, warmup_steps=1),
        dropout_seed=None,
    )


@functools.cache
def beginning(variant: Variant) -> TrainState:
    """The first state, on the host: drawn once for all meshes."""
    return jax.device_get(trainer(variant, ONE).init(seed=0))


def begin(trainer: Trainer, variant: Variant) -> TrainState:
    """The first state, on the trainer's mesh."""
    return jax.device_put(beginning(variant), trainer.layout.shardings)


def train(trainer: Trainer, variant: Variant, state: TrainState, steps: range) -> tuple[TrainState, Saved]:
    """The state after these steps, and `losses`."""
    losses = []
    for step in steps:
        batch = variant.batch(step)
        rows = trainer.local_rows()
        state, metrics = trainer.step(state, {name: array[rows] for name, array in batch.items()})
        losses.append(metrics["loss"])
    return state, {"losses": np.array([float(loss) for loss in losses])}


def arrays_of(state: TrainState) -> Saved:
    """On the host."""
    return {".".join(name): np.asarray(leaf) for name, leaf in named_leaves(state).items()}


@functools.cache
def trained(variant: Variant, mesh: str) -> Saved:
    """State and losses after all steps on a mesh."""
    made = trainer(variant, mesh)
    state, losses = train(made, variant, begin(made, variant), range(STEPS))
    return arrays_of(state) | losses


def assert_same(variant: Variant, ours: Saved, expected: Saved) -> None:
    """Losses to 1e-5, parameters and moments to 1e-4: the orders of sums differ."""
    assert ours.keys() == expected.keys()
    losses = expected["losses"]
    assert abs(losses[-1] - losses[0]) > 1e-3 * losses[0], "nothing is learnt"
    np.testing.assert_allclose(ours["losses"], losses, rtol=1e-5)
    for path, value in expected.items():
        if not variant.is_one_of(path, variant.unseen):
            largest = np.abs(value).max()
            np.testing.assert_allclose(ours[path], value, rtol=1e-4, atol=1e-4 * largest, err_msg=path)


def mesh(variant: Variant) -> None:
    """A mesh of three axes gives the losses, parameters and moments of one device."""
    assert_same(variant, trained(variant, variant.mesh), trained(variant, ONE))


def meshes(variant: Variant) -> None:
    """Every mesh gives the losses, parameters and moments of one device."""
    for mesh, config in MESHES.items():
        if variant.context or config.context == 1:
            assert_same(variant, trained(variant, mesh), trained(variant, ONE))


def resuming(variant: Variant) -> None:
    """Four steps are two, a checkpoint and two more: bit by bit on the same mesh; and on another mesh."""
    made, other = trainer(variant, variant.mesh), trainer(variant, ONE)
    half, losses = train(made, variant, begin(made, variant), range(2))
    with tempfile.TemporaryDirectory() as folder, Checkpointer(folder) as checkpointer:
        checkpointer.save(2, half, data_state={}, config="", wait=True)
        saved = arrays_of(half)
        undisturbed, more = train(made, variant, half, range(2, 4))
        again, _ = checkpointer.restore(made.layout.abstract)
        elsewhere, _ = checkpointer.restore(other.layout.abstract)
    _assert_same_bits(arrays_of(elsewhere), saved)
    expected = arrays_of(undisturbed) | {"losses": np.concatenate([losses["losses"], more["losses"]])}
    for trainer_, state in ((made, again), (other, elsewhere)):
        state, resumed = train(trainer_, variant, state, range(2, 4))
        got = arrays_of(state) | {"losses": np.concatenate([losses["losses"], resumed["losses"]])}
        (_assert_same_bits if trainer_ is made else functools.partial(assert_same, variant))(got, expected)


def two_processes(variant: Variant) -> None:
    """Two processes of four devices are one of eight."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "state.npz")
        command = [sys.executable, str(Path(__file__).with_name("own_process.py"))]
        assert launch_local(2, [*command, variant.config.family, variant.name, str(file)]) == 0
        assert_same(variant, dict(np.load(file)), trained(variant, ONE))


def _assert_same_bits(ours: Saved, expected: Saved) -> None:
    assert ours.keys() == expected.keys()
    assert not [path for path in ours if ours[path].tobytes() != expected[path].tobytes()]


def whole(leaf: Any) -> np.ndarray:
    """An array of several processes."""
    from jax.experimental import multihost_utils

    return np.asarray(
        leaf if leaf.is_fully_replicated else multihost_utils.process_allgather(leaf, tiled=True)
    )
