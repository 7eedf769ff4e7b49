"""Where metrics are written: JSON lines, TensorBoard, Weights & Biases."""

import contextlib
import dataclasses
import json
import logging
import math
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mjx.errors import InputError
from mjx.files import write_whole

METRICS_FILE = "metrics.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is reported while training runs."""

    interval: int = 10
    """Steps between two records; the loss of a record is the mean over them. The last step always has one."""
    tensorboard: bool = True
    """Write TensorBoard event files into the run folder."""
    wandb_project: str | None = None
    """Weights & Biases project to report to. Unset: none."""
    wandb_entity: str | None = None
    """Weights & Biases user or team that owns the project. Unset: the account's default."""
    progress: bool = True
    """Show a progress bar on a terminal, or one line per record where there is none."""

    def __post_init__(self):
        if self.interval < 1:
            raise InputError(f"interval = {self.interval} must be 1 or more steps")
        if self.wandb_entity is not None and self.wandb_project is None:
            raise InputError(f"wandb_entity = {self.wandb_entity} has no meaning without wandb_project")


class MetricSink(Protocol):
    """Receives the metrics of a step; `step` is the number of updates done, and does not fall."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def open_sinks(
    config: LoggingConfig,
    run_folder: str | Path,
    *,
    resume_step: int = 0,
    run_config: Mapping[str, Any] | None = None,
) -> MetricSink:
    """All sinks of a run as one; on every process but the first, one that writes nothing.

    `resume_step` is the step that training goes on from: what a run that died wrote about later steps is
    dropped, so that no step is told twice. `run_config` is the resolved config, for sinks that show one.

    Raises:
        InputError: `wandb_project` is set and wandb is not installed.
    """
    import jax

    if jax.process_index() != 0:
        return SinkGroup([])
    folder = Path(run_folder)
    folder.mkdir(parents=True, exist_ok=True)
    sinks: list[MetricSink] = []
    if config.wandb_project is not None:  # the one that can refuse comes first
        sinks.append(WandbSink(config, folder, resume_step, run_config))
    sinks.append(JSONLinesSink(folder / METRICS_FILE, resume_step))
    if config.tensorboard:
        sinks.append(TensorBoardSink(folder / "tensorboard", resume_step))
    return SinkGroup(sinks)


class SinkGroup:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[MetricSink]):
        self.sinks = list(sinks)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for sink in self.sinks:
            sink.write(step, metrics)

    def close(self) -> None:
        for sink in self.sinks:
            try:
                sink.close()
            except Exception as error:  # what was trained does not depend on it
                logging.getLogger("mjx").warning("%s could not be closed: %s", type(sink).__name__, error)


class JSONLinesSink:
    """One JSON object per line: `step`, `time` (Unix seconds) and the metrics; NaN and inf are null."""

    def __init__(self, path: str | Path, resume_step: int = 0):
        self.path = Path(path)
        _drop_after(self.path, resume_step)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        record = {"step": step, "time": round(time.time(), 3)}
        record |= {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()  # a run that is killed keeps its curve

    def close(self) -> None:
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, in order. A last line that a dying run cut short is left out.

    Raises:
        InputError: the file does not exist, or a line before the last is not a record.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: nothing has been logged there")
    records = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise InputError(f"{path}, line {number} is not a record of metrics: {line[:80]!r}") from error
        records.append(record)
    return records


def _drop_after(path: Path, step: int) -> None:
    """Leave only whole records up to `step`, in one atomic replacement."""
    if not path.exists():
        return
    lines = [json.dumps(record) + "\n" for record in read_metrics(path) if record["step"] <= step]
    write_whole(path, "".join(lines))


@contextlib.contextmanager
def _torch_left_out() -> Iterator[None]:
    """tensorboardX imports torch if there is one, which takes seconds, for charts that nobody here draws."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        yield
    finally:
        del sys.modules["torch"]


class TensorBoardSink:
    """Scalars for TensorBoard; a slash in a name makes a group."""

    def __init__(self, folder: str | Path, resume_step: int = 0):
        with _torch_left_out():
            from tensorboardX import SummaryWriter

        # The purge step tells TensorBoard to forget what a dead run wrote from there on.
        self._writer = SummaryWriter(
            str(folder),
            purge_step=resume_step + 1,
            filename_suffix=f".{resume_step}",  # file names count seconds: a quick resume would overwrite
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if math.isfinite(value):  # a chart has no place for it, and each would print a warning
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbSink:
    """A Weights & Biases run. Its id is kept in the run folder, so that resuming goes on in the same one."""

    def __init__(
        self,
        config: LoggingConfig,
        run_folder: Path,
        resume_step: int = 0,
        run_config: Mapping[str, Any] | None = None,
    ):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError(
                f"logging.wandb_project = {config.wandb_project} needs the package wandb, which is not "
                "installed (pip install 'mjx[wandb]', or leave wandb_project unset)"
            ) from error
        id_file = run_folder / "wandb_id"
        if resume_step == 0 or not (id_file.exists() and id_file.read_text(encoding="utf-8").strip()):
            write_whole(id_file, secrets.token_hex(4) + "\n")
        self._run = wandb.init(
            project=config.wandb_project,
            entity=config.wandb_entity,
            name=run_folder.resolve().name,
            id=id_file.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(run_folder),
            config=dict(run_config or {}),
        )
        # Weights & Biases counts its own steps and refuses to go back; ours is the axis of the charts.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def close(self) -> None:
        self._run.finish()
