"""A whole run, from a config to a trained checkpoint. Reads like a page: input, model, restore, loop, end."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping

import jax
from jax.sharding import Mesh

from mjx.checkpoint.checkpointer import Checkpointer
from mjx.checkpoint.run_folder import RunFolder
from mjx.config import RunConfig
from mjx.data.dataset import Dataset
from mjx.data.loader import Loader, evaluation_batches
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError
from mjx.inference.text import check_texts
from mjx.launch.failure import spared
from mjx.launch.preemption import Preemption
from mjx.launch.watchdog import Watchdog
from mjx.metrics.curve import VALIDATION, VALIDATION_LOSS
from mjx.metrics.meter import Meter, StepReport
from mjx.metrics.peak_flops import peak_flops
from mjx.metrics.profiler import Profiler
from mjx.metrics.progress import Progress
from mjx.metrics.sinks import MetricSink, open_sinks, read_metrics
from mjx.models.family import Batch
from mjx.parse import to_tree
from mjx.run.given import given_parameters
from mjx.run.resume import changes_since
from mjx.run.vocabulary import warn_of_unknown_ids
from mjx.source import keep_companions, open_source
from mjx.training.non_finite import FiniteWatch
from mjx.training.state import TrainState
from mjx.training.trainer import Trainer
from mjx.trees import to_yaml


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended."""

    step: int
    """Updates done, those of earlier starts included."""
    validation_losses: Mapping[str, float]
    """After the last step, by the names under which they are logged; empty where the run was stopped early or
    has no validation."""
    finished: bool
    """False: stopped by a signal or training.stop_at, to be resumed."""
    state: TrainState
    trainer: Trainer
    folder: RunFolder
    tokenizer: Tokenizer | None

    @property
    def validation_loss(self) -> float | None:
        """Of the split's valid part, if that is the validation set."""
        return self.validation_losses.get(VALIDATION_LOSS)


def train(config: RunConfig) -> Result:
    """Train until done, or until a signal asks to stop; resumes what the run folder already has.

    Every process of the run calls this after `mjx.launch.runtime.start`.

    Raises:
        InputError: something in the config, the data, the mesh or the run folder does not fit.
        NonFiniteError: the loss or the gradient is not finite, and optimizer.non_finite is `stop`, or skipped
            too many of such steps.
    """
    # Input
    vocabulary = config.model.vocabulary
    data = config.data.open(vocabulary)
    if data.tokenizer is not None:
        warn_of_unknown_ids(data.tokenizer, vocabulary, "the data")
    plan = config.training
    samples = data.dataset("train", plan.steps * plan.batch_size)
    validation = data.validation() if plan.evaluation_rows else {}

    # Model, mesh, optimizer, compiled steps
    trainer = build_trainer(config)
    if plan.prompts:
        _check_prompts(config, trainer, data.tokenizer)

    first = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        # Restore
        folder = stack.enter_context(RunFolder(config.run_dir))
        checkpointer = stack.enter_context(Checkpointer(folder.checkpoints, config.checkpoint))
        progress = Progress(plan.steps, enabled=first and config.logging.progress)
        latest = checkpointer.latest_step()
        start = latest or 0
        tree = to_tree(config)
        if start > plan.steps:
            raise InputError(
                f"{folder.path} has a checkpoint of step {start}, beyond training.steps = {plan.steps}; "
                "choose another run_dir or more steps"
            )
        for sentence in trainer.decided:
            progress.say(sentence)
        if start < plan.steps:
            trainer.compile_beside()
        if start:
            for change in changes_since(checkpointer.saved_config(start), config):
                progress.say(f"resuming with a changed config: {change}")
            state, _, start = checkpointer.restore_newest(trainer.layout.abstract)
            progress.say(f"resuming {folder.path} at step {start}")
        elif latest is not None:
            raise InputError(
                f"{folder.path} holds an imported model: give this run another run_dir, and "
                f"init_from={folder.path}"
            )
        elif config.init_from is not None:
            source = open_source(config.init_from)
            given = given_parameters(source, trainer, plan.seed)
            state = trainer.start(given.parameters)
            keep_companions(source, folder.huggingface)
            progress.say(f"starting from the weights of {config.init_from}")
            for sentence in given.said:
                progress.say(sentence)
        else:
            state = trainer.init(plan.seed)
        checkpointer.prepare(start)
        folder.write_config(to_yaml(tree))
        if first and data.tokenizer is not None:
            data.tokenizer.save(folder.tokenizer)

        # Loop
        run = _Run(config, trainer, checkpointer, folder, tree, start, progress, validation, stack)
        stopped = False
        if start < plan.steps:
            if start and run.evaluation_due(start):  # the signal or the crash came between it and the save
                run.evaluate(state, start)
            loader = Loader(
                samples,
                plan.batch_size,
                trainer.local_rows(),
                start_step=start,
                prefetch=config.data.prefetch,
                threads=config.data.threads,
            )
            state, stopped = run.loop(state, loader)
        step = int(jax.device_get(state.step))
        if stopped:
            progress.say(f"stopped after step {step}; the same command resumes")
        # Evaluate
        losses: dict[str, float] = {}
        if not stopped:
            with spared("evaluated", together=True):
                losses = run.evaluate(state, step)
        for sentence in data.remarks():
            progress.say(sentence)
    return Result(step, losses, not stopped, state, trainer, folder, data.tokenizer)


def _check_prompts(config: RunConfig, trainer: Trainer, tokenizer: Tokenizer | None) -> None:
    """Before training: at its end it would be too late."""
    try:
        check_texts(trainer.model, tokenizer, config.training.prompts, config.sampling, config.data)
    except InputError as error:
        raise InputError(f"training.prompts: {error}") from error


def build_trainer(config: RunConfig, mesh: Mesh | None = None) -> Trainer:
    """The trainer of a recipe, on all devices here or on another mesh: of devices that programs can only be
    compiled for, to plan a run."""
    plan = config.training
    return Trainer(
        config.model,
        steps=plan.steps,
        batch=config.data.arrays(plan.batch_size),
        mesh=mesh or config.mesh,
        sharding=config.sharding,
        optimizer=config.optimizer,
        schedule=config.schedule,
        microbatches=plan.microbatches,
        zero1=plan.zero1,
        dropout_seed=plan.seed,
    )


class _Run:
    """What the loop holds on to between two steps."""

    def __init__(
        self,
        config: RunConfig,
        trainer: Trainer,
        checkpointer: Checkpointer,
        folder: RunFolder,
        tree: dict,
        start: int,
        progress: Progress,
        validation: Mapping[str, Dataset],
        stack: contextlib.ExitStack,
    ):
        arrays = trainer.batch_layout.arrays
        self.config, self.trainer, self.checkpointer, self.tree = config, trainer, checkpointer, tree
        self.start, self.validation = start, validation
        self.finite = FiniteWatch(config.optimizer.non_finite, config.optimizer.skip_limit)
        # A save is put off while updates are skipped, as the parameters may be ruined.
        self.save_due = False
        # Nobody has gone on from the newest checkpoint yet, so those before it are kept.
        self.unproven = start > 0
        self.progress = stack.enter_context(progress)
        self.sinks: MetricSink = stack.enter_context(
            contextlib.closing(open_sinks(config.logging, folder.path, resume_step=start, run_config=tree))
        )
        # Read behind the opening, which drops what a dead run wrote about later steps.
        self.evaluated = _evaluated(folder) if jax.process_index() == 0 else set()
        self.profiler = stack.enter_context(
            contextlib.closing(Profiler(config.profile, folder.path / "profile"))
        )
        self.meter = Meter(
            interval=config.logging.interval,
            tokens_per_step=math.prod(config.model.size(arrays)),
            flops_per_step=config.model.flops(arrays),
            peak_flops=peak_flops(precision=config.model.compute_dtype),
        )

    def loop(self, state: TrainState, loader: Loader) -> tuple[TrainState, bool]:
        """Steps until the end or a signal; the last state is saved. True: stopped early."""
        plan, step, stop = self.config.training, self.start, False
        last = plan.steps if plan.stop_at is None else min(plan.stop_at, plan.steps)
        with Preemption() as preemption, Watchdog(self.config.watchdog) as watchdog:
            for batch in self._batches(loader, last - step):
                with self.profiler.step(step), jax.transfer_guard("disallow"):
                    state, metrics = self.trainer.step(state, batch)
                step += 1
                self._report(self.meter.push(step, metrics))
                if self.profiler.after_step(state):
                    self.progress.say(f"wrote the profile of this window to {self.profiler.folder}")
                watchdog.beat(step)
                stop = preemption.should_stop(step)
                self.save_due |= self.checkpointer.due(step)
                if stop or step == last or self.save_due:
                    self._save(step, state, wait=stop or step == last)
                if stop:
                    self.progress.say(f"{preemption.reason}: saved step {step}")
                    break
                if self.evaluation_due(step) and step < plan.steps:
                    with watchdog.allow(self.config.watchdog.first_step_seconds, "an evaluation"):
                        self.evaluate(state, step)
        return state, step < plan.steps

    def evaluation_due(self, step: int) -> bool:
        """Whether the recipe asks for a validation loss after `step`, besides the one at the end."""
        interval = self.config.training.evaluation_interval
        return interval is not None and step % interval == 0

    def evaluate(self, state: TrainState, step: int) -> dict[str, float]:
        """The loss of each validation set; logged and shown, with the scores that the model gives itself."""
        plan = self.config.training
        losses: dict[str, float] = {}
        scores: dict[str, float] = {}
        shown: list[str] = []
        if not self.validation:
            return losses
        with self.meter.pause():
            for name, dataset in self.validation.items():
                batches = evaluation_batches(
                    dataset,
                    plan.batch_size,
                    self.trainer.local_rows(),
                    num_batches=-(-plan.evaluation_rows // plan.batch_size),
                )
                found = self.trainer.evaluate(state.parameters, batches)
                losses[_of_set(VALIDATION_LOSS, name)] = found.losses["loss"]
                scores |= {_of_set(f"{VALIDATION}{score}", name): one for score, one in found.scores.items()}
                said = ", ".join(f"{score} {one:.4f}" for score, one in found.scores.items())
                shown.append(f"{name} {found.losses['loss']:.4f}{said and f' ({said})'}".lstrip())
        metrics = {**losses, **scores}
        new = {metric: one for metric, one in metrics.items() if (step, metric) not in self.evaluated}
        if new:
            self.sinks.write(step, new)
        self.progress.say(f"step {step}: validation loss {', '.join(shown)}")
        return losses

    def _batches(self, loader: Loader, count: int) -> Iterator[Batch]:
        """`count` batches, each placed on the devices while the step before it runs."""
        for _ in range(count):
            with self.meter.waiting():
                batch = next(loader, None)
            if batch is None:
                return
            yield self.trainer.place(batch)

    def _report(self, report: StepReport | None) -> None:
        if report is None:
            return
        if report.record is not None:
            self.sinks.write(report.step, report.record)
        self.progress.update(report)
        self.finite.look(report.step, report.metrics)
        if self.unproven and not self.finite.skipped:
            self.checkpointer.delete_old()
            self.unproven = False

    def _save(self, step: int, state: TrainState, *, wait: bool) -> None:
        # A checkpoint of a state that a non-finite step has reached would be taken for a good one.
        self._report(self.meter.flush(final=wait))
        if self.finite.skipped and not wait:
            return
        keep_others = bool(self.finite.skipped) or step < self.config.training.steps
        with self.meter.pause():
            self.checkpointer.save(
                step, state, data_state={"step": step}, config=self.tree, wait=wait, keep_others=keep_others
            )
        self.save_due, self.unproven = False, keep_others


def _of_set(metric: str, name: str) -> str:
    """A metric of the validation set with this name."""
    return f"{metric}/{name}" if name else metric


def _evaluated(folder: RunFolder) -> set[tuple[int, str]]:
    """Step and name of what earlier starts of the run have logged of validation sets."""
    records = read_metrics(folder.metrics) if folder.metrics.exists() else []
    return {(record["step"], name) for record in records for name in record if name.startswith(VALIDATION)}
