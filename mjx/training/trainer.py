"""One model made ready to train on one mesh: what the command line drives, and your own script can."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mjx.batch import BatchArrays, cut_batch
from mjx.errors import InputError
from mjx.models.common.parameter import logical_axes_of
from mjx.models.family import Batch, Metrics, ModelConfig, abstract_model
from mjx.sharding import MeshConfig, Rules, ShardingConfig, build_mesh, use_mesh
from mjx.training.batch_layout import plan_batch
from mjx.training.gradients import replica_axis
from mjx.training.groups import trained_of
from mjx.training.optimizer import OptimizerConfig, build_optimizer
from mjx.training.schedule import ScheduleConfig, build_schedule
from mjx.training.state import TrainState, init_state, plan_state, state_of
from mjx.training.step import build_evaluation_step, build_train_step
from mjx.trees import Tree, split


class Evaluation(NamedTuple):
    """Of a validation set."""

    losses: dict[str, float]
    counts: dict[str, float]
    """What these were divided by."""
    scores: dict[str, float]
    """How good the model is (accuracy, F1, …), whatever the batches and the mesh."""


class Trainer:
    """Mesh, shardings, optimizer and compiled steps of one model.

    ```
    trainer = Trainer(config, steps=100, batch=token_batch(rows=8, sequence=256))
    state = trainer.init(seed=0)
    for batch in batches:                   # dicts of numpy arrays, this process's rows
        state, metrics = trainer.step(state, batch)
    ```

    Args:
        steps: the length of training, which the schedule is laid out for.
        batch: the arrays of a batch, over all devices of all processes, as a kind of dataset says them.
        dropout_seed: None switches dropout off.

    Raises:
        InputError: the mesh does not fit the devices, or the model or batch do not fit the mesh.
    """

    def __init__(
        self,
        model: ModelConfig,
        *,
        steps: int,
        batch: BatchArrays,
        mesh: Mesh | MeshConfig | None = None,
        sharding: ShardingConfig | None = None,
        optimizer: OptimizerConfig | None = None,
        schedule: ScheduleConfig | None = None,
        microbatches: int = 1,
        zero1: bool = False,
        dropout_seed: int | None = 0,
    ):
        self.config = model
        model.check_batch(batch)
        self.mesh = mesh if isinstance(mesh, Mesh) else build_mesh(mesh)
        if self.mesh.shape["pipeline"] > 1:
            raise InputError(
                f"mesh.pipeline = {self.mesh.shape['pipeline']}: pipeline stages are not built yet (set 1)"
            )
        self.rules: Rules = (sharding or ShardingConfig()).build()
        self.batch_layout = plan_batch(batch, self.mesh, self.rules)
        if microbatches > 1 and model.rows_together is not None:
            raise InputError(
                f"training.microbatches = {microbatches}: {model.rows_together} compares each row with all "
                "others of its batch, which microbatches would cut; set 1"
            )
        if microbatches > 1:  # each of them has to divide over the mesh as well
            plan_batch(cut_batch(batch, microbatches), self.mesh, self.rules)
        self.schedule = build_schedule(schedule or ScheduleConfig(), steps)
        optimizer = optimizer or OptimizerConfig()
        with self.on_mesh():
            self.model: Any = abstract_model(model)
            trained = trained_of(self.model, optimizer.groups)
            axes, _ = split(logical_axes_of(self.model), trained)
            self.transformation = build_optimizer(optimizer, self.schedule, axes)
            self.layout = plan_state(
                self.model, self.transformation, self.mesh, self.rules, trained=trained, zero1=zero1
            )
            self.train_step = build_train_step(
                self.model,
                self.transformation,
                optimizer,
                self.schedule,
                layout=self.layout,
                microbatches=microbatches,
                replicas=replica_axis(
                    model, self.mesh.shape, self.rules, microbatches=microbatches, zero1=zero1
                ),
                dropout_seed=dropout_seed,
            )
            self.evaluation_step = build_evaluation_step(self.model)
        self._microbatches = microbatches
        self._compiling: threading.Thread | None = None
        self._devices_checked = False

    @contextlib.contextmanager
    def on_mesh(self) -> Iterator[None]:
        """Within it, arrays and traces belong to this trainer's mesh and rules."""
        with use_mesh(self.mesh, self.rules):
            yield

    def init(self, seed: int) -> TrainState:
        """Fresh parameters and optimizer state, drawn where they live."""
        with self.on_mesh():
            return init_state(self.config, self.transformation, self.layout, seed)

    def start(self, parameters: Tree) -> TrainState:
        """A state that begins with given parameters, which lie as `layout.abstract.parameters` says."""
        with self.on_mesh():
            return state_of(parameters, self.transformation, self.layout)

    @property
    def decided(self) -> tuple[str, ...]:
        """What layers decide by the mesh, and why."""
        with self.on_mesh():
            return self.config.decided(cut_batch(self.batch_layout.arrays, self._microbatches))

    def local_rows(self) -> np.ndarray:
        """Which rows of the global batch this process has to bring."""
        return self.batch_layout.local_rows

    def place(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """This process's rows on the devices, as parts of global arrays."""
        return self.batch_layout.place(batch)

    def compile_beside(self) -> None:
        """Begin to compile the training step in another thread, while a state is made or read for it; the
        first `step` waits for it."""

        def compile_step() -> None:
            with contextlib.suppress(Exception), self.on_mesh():  # what fails here fails in the first step
                self.train_step.lower(self.layout.abstract, self.batch_layout.abstract).compile()

        self._compiling = threading.Thread(target=compile_step, name="mjx compiles the training step")
        self._compiling.start()

    def step(self, state: TrainState, batch: Mapping[str, np.ndarray] | Batch) -> tuple[TrainState, Metrics]:
        """One update. The state given is donated: use the one returned. Metrics stay on the device.

        Raises:
            InputError: in the first step, the devices get something wrong that the model needs.
        """
        if self._compiling is not None:
            self._compiling.join()
            self._compiling = None
        with self.on_mesh():
            if not self._devices_checked:
                self.config.check_devices()
                self._devices_checked = True
            return self.train_step(state, self._on_devices(batch))

    def evaluate(self, parameters: Tree, batches: Iterator[Mapping[str, np.ndarray]]) -> "Evaluation":
        """Losses over all of the batches, and what the model makes of all of their rows."""
        totals: tuple[Any, Any] | None = None
        parts: list[dict[str, jax.Array]] = []
        with self.on_mesh():
            for batch in batches:
                losses, counts, rows = self.evaluation_step(parameters, self._on_devices(batch))
                parts.append(rows)
                totals = (
                    (losses, counts) if totals is None else jax.tree.map(jnp.add, totals, (losses, counts))
                )
        losses, counts = jax.device_get(totals) if totals is not None else ({}, {})
        empty = [name for name, count in counts.items() if not count]
        if empty or not counts:
            raise InputError(f"the evaluation batches have no unmasked {' and '.join(empty) or 'rows'}")
        counts = {name: float(count) for name, count in counts.items()}
        whole = {
            name: np.concatenate([np.asarray(part[name].addressable_data(0)) for part in parts])
            for name in parts[0]
        }
        return Evaluation(
            {name: float(loss.total) / counts[loss.count] for name, loss in losses.items()},
            counts,
            self.model.scores(whole),
        )

    def _on_devices(self, batch: Mapping[str, Any]) -> Batch:
        placed = isinstance(next(iter(batch.values())), jax.Array)
        return dict(batch) if placed else self.place(batch)
