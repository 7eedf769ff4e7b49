"""Checkpoints of a run: saved while it trains, whole or absent, restored on any mesh.

`checkpoints/<step>/` is one Orbax checkpoint. It holds the arrays of the state by name, and with them the
position in the data and the resolved config. It appears under its name only when all of it is on disk, and
loses its name before the first of its files is deleted: whatever a killed run leaves behind has another
name, is never restored, and is swept away by the next run that saves there. What was whole and is so no more
(an interrupted copy, a bad disk) is passed over with a warning, and kept under another name.
"""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from mjx.checkpoint import orbax_store
from mjx.checkpoint.folder_lock import FolderLock
from mjx.errors import InputError
from mjx.files import check_free_space, disk_full_error, flush_to_disk, local_path, remove
from mjx.launch.primary import on_primary

_DELETED_PREFIX = ".deleting-"
_DAMAGED_SUFFIX = ".damaged"
_NO_STEP = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When a run saves its state, and which of the saved states it keeps."""

    interval: int = 1000
    """Steps from one checkpoint to the next; the last step of a run is always saved."""
    keep_last: int = 3
    """How many of the newest checkpoints to keep."""
    keep_every: int | None = None
    """Checkpoints of steps that are multiples of this are kept for ever; none of them when left out."""
    asynchronous: bool = True
    """Write while training goes on; otherwise training waits for the disk."""
    timeout: float = 1200.0
    """Seconds after which a save that has not ended counts as failed, so that a dead file system or a dead
    process cannot hold up the run for ever."""

    def __post_init__(self) -> None:
        for field in ("interval", "keep_last", "keep_every", "timeout"):
            value = getattr(self, field)
            if value is not None and value <= 0:
                raise InputError(f"checkpoint.{field} = {value} must be positive.")
        if self.keep_every is not None and self.keep_every % self.interval:
            raise InputError(
                f"checkpoint.keep_every = {self.keep_every} must be a multiple of checkpoint.interval = "
                f"{self.interval}: no other steps are saved."
            )


class Checkpointer:
    """The checkpoints in one folder.

    Every process of a run makes one and calls its methods in the same order; each writes and reads its own
    shards, and process 0 does what concerns the folder. Restoring needs nothing but the folder. The first
    save locks the folder, which a second live run could not do, and sweeps away what a killed run left.

    ```
    with Checkpointer(folder.checkpoints, config.checkpoint) as checkpointer:
        checkpointer.save(step, state, data_state={"step": step}, config=text)     # returns at once
    ```
    """

    def __init__(self, directory: str | os.PathLike, config: CheckpointConfig | None = None):
        self.directory = Path(local_path(directory)).absolute()
        self.config = config or CheckpointConfig()
        orbax_store.orbax()  # A second of imports that the first save would stand still for.
        self._lock = FolderLock(self.directory / ".lock", self.directory)
        self._claimed = False
        self._own_steps: set[int] = set()
        self._damaged: set[int] = set()
        self._writer: ThreadPoolExecutor | None = None
        self._pending: list[Future[None]] = []

    def due(self, step: int) -> bool:
        """Whether the state after `step` steps is one to save."""
        return step % self.config.interval == 0

    def all_steps(self) -> list[int]:
        """The steps of the complete checkpoints as this process sees them, oldest first."""
        try:
            names = (entry.name for entry in self.directory.iterdir())
            return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)
        except FileNotFoundError:
            return []

    def latest_step(self) -> int | None:
        """The newest whole checkpoint, the same on every process; all of them must call this. A warning names
        those that are newer and damaged.

        Raises InputError when all that are there are damaged.
        """
        latest = on_primary(self._newest)
        return None if latest == _NO_STEP else latest

    def prepare(self, first_step: int) -> None:
        """Makes the folder ready for saves from `first_step` on. The first save does this by itself; calling
        it before the first step of training tells what is wrong hours earlier.

        Raises InputError when another live run saves here, or when checkpoints of `first_step` or later are
        here that this run neither made nor restored: a restart would take them for its own.
        """
        if not self._claimed:
            on_primary(lambda: self._claim(first_step))
            self._claimed = True

    def save(
        self,
        step: int,
        state: Any,
        *,
        data_state: dict[str, Any],
        config: dict[str, Any] | str,
        wait: bool = False,
        keep_others: bool = False,
    ) -> float:
        """Saves the state after `step` steps and returns the seconds for which the caller was held up.

        When this returns, `state` may be donated to the next step. The writing goes on in the background,
        unless `wait` is set or the config says so. Saving a step again does nothing.

        data_state: the position in the data, JSON.
        config: the resolved config, JSON or text.
        keep_others: delete none of the older checkpoints for it; `delete_old` does, once this one has proved
            to be good.

        Raises what went wrong in the save *before* this one, if nobody has been told yet; InputError when
        the folder is another live run's, or the disk has too little room.
        """
        started = time.monotonic()
        self._join()
        waited = time.monotonic() - started
        if waited > 1:
            logging.getLogger(__name__).warning(
                "Step %d waited %.1f s for the checkpoint before it to be written; "
                "a greater checkpoint.interval, or a faster disk, would spare that.",
                step,
                waited,
            )
        if step not in self._own_steps:
            metadata = {"step": step, "data": data_state, "config": config}
            self._start(step, state, metadata, keep_others=keep_others)
        if wait or not self.config.asynchronous:
            self._join()
        return time.monotonic() - started

    def delete_old(self) -> None:
        """Deletes in the background what the config does not keep, when the save before has ended."""
        if jax.process_index() == 0:
            self._in_background(self._delete_old)

    def restore_newest(self, abstract_state: Any, *, partial: bool = False) -> tuple[Any, dict, int]:
        """As `restore`, of the newest checkpoint that can be read, and its step. A warning names those that
        cannot."""
        while True:
            step = self._existing(self.latest_step())
            try:
                return *self.restore(abstract_state, step, partial=partial), step
            except orbax_store.DamagedError as error:
                if jax.process_count() > 1:  # the others wait for this one inside of Orbax
                    raise
                self._pass_over(step, error)

    def restore(
        self, abstract_state: Any, step: int | None = None, *, partial: bool = False
    ) -> tuple[Any, dict]:
        """The state saved after `step` steps (the newest when left out), and the position in the data.

        abstract_state: the state with a `jax.ShapeDtypeStruct` in place of each array, whose shardings may
            be of any mesh and any number of processes.
        partial: pass over what the checkpoint holds beside the entries of `abstract_state`; with
            `{"params": ...}` the optimizer's state is not read.

        Raises InputError when there is no such checkpoint, or when it holds other arrays than
        `abstract_state`; in the latter case nothing has been read.
        """
        if step is None:
            state, data_state, _ = self.restore_newest(abstract_state, partial=partial)
            return state, data_state
        step = self._existing(step)
        data_state = self._metadata(step, "data")
        state = orbax_store.read_arrays(self.directory / str(step), abstract_state, partial=partial)
        self._own_steps.add(step)
        return state, data_state

    def saved_config(self, step: int | None = None) -> dict[str, Any] | str:
        """The resolved config that the checkpoint was made with, as it was given to `save`."""
        return self._metadata(self._existing(self.latest_step() if step is None else step), "config")

    def wait(self) -> None:
        """Waits until the last save is on disk, and raises what went wrong in it."""
        self._join()

    def close(self) -> None:
        """Waits for the last save and frees the folder. Raises what went wrong in that save."""
        try:
            self._join()
        finally:
            if self._writer is not None:
                self._writer.shutdown(wait=False)
                self._writer = None
            self._lock.release()
            self._claimed = False

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, _type: Any, exception: BaseException | None, _traceback: Any) -> None:
        try:
            self.close()
        except Exception as error:
            if exception is None:
                raise
            exception.add_note(f"The last checkpoint was lost as well: {error}")

    def _start(self, step: int, state: Any, metadata: dict[str, Any], *, keep_others: bool) -> None:
        try:
            json.dumps(metadata)
        except TypeError as error:
            raise TypeError(f"The data state and the config of a checkpoint must be JSON: {error}.") from None
        named = orbax_store.arrays_to_save(state)
        needed = orbax_store.size_in_bytes(named)
        what = f"The checkpoint of step {step}"

        def admit() -> None:
            if not self._claimed:
                self._claim(step)
            advice = "Free some space, or keep fewer checkpoints; those that are there are untouched."
            check_free_space(self.directory, needed, what, advice)

        on_primary(admit)
        self._claimed = True
        response = orbax_store.start_saving(self.directory / str(step), named, metadata, self.config.timeout)
        self._own_steps.add(step)
        self._in_background(self._finish, response, step, needed, keep_others)

    def _in_background(self, action: Callable[..., None], *arguments: Any) -> None:
        """One after the other, in the order in which they are asked for."""
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending.append(self._writer.submit(action, *arguments))

    def _finish(
        self, response: orbax_store.SaveInProgress, step: int, needed: int, keep_others: bool
    ) -> None:
        """Runs in the background, to the end of the save; every process does, process 0 tidies up after."""
        try:
            response.result(self.config.timeout)
            if jax.process_index() == 0:
                orbax_store.record_files(self.directory / str(step))
                flush_to_disk(self.directory / str(step))
        except BaseException as error:
            self._own_steps.discard(step)
            what = f"The checkpoint of step {step}"
            logging.getLogger(__name__).error("%s failed: %s", what, error)
            full = disk_full_error(
                error, self.directory, needed, what, "The checkpoints before it are untouched."
            )
            if jax.process_count() == 1 and not isinstance(error, TimeoutError):
                shutil.rmtree(self._unfinished(step), ignore_errors=True)
            if full is not None:
                raise full from error
            if isinstance(error, TimeoutError):
                raise RuntimeError(
                    f"{what} was not written within checkpoint.timeout = {self.config.timeout:g} seconds: "
                    f"the file system of {self.directory} or another process of the run does not answer."
                ) from error
            raise
        if jax.process_index() == 0 and not keep_others:
            self._delete_old()

    def _join(self) -> None:
        while self._pending:
            # The background work ends by itself within the timeout; the margin is for deleting and flushing.
            self._pending.pop(0).result(2 * self.config.timeout)

    def _metadata(self, step: int, key: str) -> Any:
        _, metadata = orbax_store.read_metadata(self.directory / str(step))
        if key not in metadata:
            raise InputError(
                f"The checkpoint {self.directory / str(step)} was not made by mjx: it has no {key!r}."
            )
        return metadata[key]

    def _existing(self, step: int | None) -> int:
        def find() -> int:
            steps = self.all_steps()
            if step is None:
                raise InputError(f"There is no checkpoint in {self.directory}.")
            if step not in steps:
                raise InputError(
                    f"There is no checkpoint of step {step} in {self.directory}, only of {steps}."
                )
            return step

        return on_primary(find)

    def _newest(self) -> int:
        steps = [step for step in self.all_steps() if step not in self._damaged]
        for step in reversed(steps):
            try:
                orbax_store.check_files(self.directory / str(step))
                return step
            except orbax_store.DamagedError as error:
                self._pass_over(step, error)
        return _NO_STEP

    def _pass_over(self, step: int, error: orbax_store.DamagedError) -> None:
        """Says which checkpoint is looked at instead of a damaged one; raises `error` where there is none."""
        self._damaged.add(step)
        others = [other for other in self.all_steps() if other not in self._damaged]
        if not others:
            raise error
        logging.getLogger("mjx").warning(
            "The checkpoint %s is damaged (%s); that of step %d is taken instead.",
            self.directory / str(step),
            error.reason,
            others[-1],
        )

    def _claim(self, first_step: int) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise InputError(f"Checkpoints cannot be kept in {self.directory}: {error.strerror}.") from error
        self._set_aside()
        later = [step for step in self.all_steps() if step >= first_step and step not in self._own_steps]
        if later:
            self._lock.release()
            raise InputError(
                f"{self.directory} holds checkpoints of the steps {later}, which this run neither made nor "
                f"restored, and it is about to save step {first_step}. Resume from the newest of them, move "
                "them away, or give this run another folder."
            )
        for entry in self.directory.iterdir():
            if entry.name.endswith(orbax_store.UNFINISHED_SUFFIX) or entry.name.startswith(_DELETED_PREFIX):
                with contextlib.suppress(OSError):
                    remove(entry)

    def _set_aside(self) -> None:
        """Gives the damaged checkpoints that this run goes on without another name."""
        for step in self._damaged:
            damaged = self.directory / str(step)
            aside = damaged.with_name(damaged.name + _DAMAGED_SUFFIX)
            try:
                if os.path.lexists(aside):
                    remove(aside)
                damaged.rename(aside)
            except OSError as error:
                raise InputError(f"{damaged} is damaged and cannot be renamed: {error.strerror}.") from error
        self._damaged.clear()

    def _delete_old(self) -> None:
        keep_every = self.config.keep_every
        for step in self.all_steps()[: -self.config.keep_last]:
            if keep_every is not None and step % keep_every == 0:
                continue
            doomed = self.directory / f"{_DELETED_PREFIX}{step}"
            try:
                (self.directory / str(step)).rename(doomed)
                remove(doomed)
            except OSError as error:  # Not worth a run; the next one sweeps it away.
                logging.getLogger(__name__).warning(
                    "The old checkpoint %s could not be deleted: %s", doomed, error
                )

    def _unfinished(self, step: int) -> Path:
        return self.directory / f"{step}{orbax_store.UNFINISHED_SUFFIX}"
