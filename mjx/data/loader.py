"""Batches for the steps of a run: each process reads its own rows of the global batch, ahead of time.

Sample id = step · global_batch_size + row, whatever the number of processes; so the state of a loader is the
step.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from mjx.data.dataset import Batch, Dataset
from mjx.errors import InputError


class Loader:
    """Iterates over this process's part of the batch of every step, until the dataset has no whole batch
    left."""

    def __init__(
        self,
        dataset: Dataset,
        global_batch_size: int,
        rows: Int[np.ndarray, "rows"] | None = None,
        *,
        start_step: int = 0,
        prefetch: int = 2,
        threads: int = 1,
    ) -> None:
        """Args:
        dataset: What the samples are read from.
        global_batch_size: Rows of a step, over all processes.
        rows: Which of them this process reads, in this order; None: all.
        start_step: The first step to read.
        prefetch: Steps to read ahead in the background; 0 reads when asked.
        threads: That read ahead, each a step of its own.
        """
        rows = checked_rows(rows, global_batch_size)
        num_steps = len(dataset) // global_batch_size
        if num_steps == 0:
            raise InputError(
                f"The dataset has {len(dataset)} samples, fewer than one batch of global_batch_size = "
                f"{global_batch_size}."
            )
        if not 0 <= start_step <= num_steps:
            raise InputError(
                f"start_step = {start_step} is not within the {num_steps} steps that the dataset has."
            )
        self.num_steps = num_steps
        self._step = start_step
        self._iterator: Any = None
        if start_step < num_steps:
            import grain  # half a second, which those who only read a config need not wait for

            steps = grain.MapDataset.source(_Steps(dataset, global_batch_size, rows, start_step, num_steps))
            options = grain.ReadOptions(num_threads=threads if prefetch else 0, prefetch_buffer_size=prefetch)
            self._iterator = iter(steps.to_iter_dataset(options))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            raise StopIteration
        batch = next(self._iterator)
        self._step += 1
        return batch

    def close(self) -> None:
        """Ends the reading ahead; no more batches come."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None

    def state(self) -> dict[str, int]:
        """What a checkpoint keeps: `Loader(..., start_step=state["step"])` goes on with the next batch."""
        return {"step": self._step}


class _Steps:
    """The steps from `start` on, as grain asks for them: element i is step start + i."""

    def __init__(
        self, dataset: Dataset, global_batch_size: int, rows: Int[np.ndarray, "rows"], start: int, stop: int
    ) -> None:
        self.dataset, self.global_batch_size, self.rows, self.start, self.stop = (
            dataset,
            global_batch_size,
            rows,
            start,
            stop,
        )

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Batch:
        first = (self.start + index) * self.global_batch_size
        return _read(self.dataset, first + np.arange(self.global_batch_size), self.rows)


def evaluation_batches(
    dataset: Dataset,
    global_batch_size: int,
    rows: Int[np.ndarray, "rows"] | None = None,
    *,
    num_batches: int | None = None,
) -> Iterator[Batch]:
    """Every sample of the dataset once (or the first `num_batches` batches), in batches of one shape.

    The last batch is filled up with rows that the dataset gives no weight, so that weighted sums are exact.
    """
    rows = checked_rows(rows, global_batch_size)
    whole = -(-len(dataset) // global_batch_size)
    for number in range(whole if num_batches is None else min(whole, num_batches)):
        samples = number * global_batch_size + np.arange(global_batch_size)
        beyond = samples >= len(dataset)
        batch = _read(dataset, np.where(beyond, 0, samples), rows)
        dataset.blank(batch, beyond[rows])
        yield batch


def _read(dataset: Dataset, samples: Int[np.ndarray, "global_batch"], rows: Int[np.ndarray, "rows"]) -> Batch:
    """These rows of a batch, as long as every process's are."""
    batch, widths = dataset.read(samples[rows]), dataset.widths(samples)
    return {
        name: np.ascontiguousarray(values[:, : widths[name]]) if name in widths else values
        for name, values in batch.items()
    }


def checked_rows(rows: Int[np.ndarray, "rows"] | None, global_batch_size: int) -> Int[np.ndarray, "rows"]:
    """`rows` as int64 (all when None); raises InputError where they are no part of a batch."""
    if rows is None:
        return np.arange(global_batch_size)
    rows = np.asarray(rows, np.int64)
    if rows.ndim != 1 or not rows.size or rows.min() < 0 or rows.max() >= global_batch_size:
        raise InputError(
            f"rows = {rows.tolist()} are not rows of a batch of global_batch_size = {global_batch_size}."
        )
    return rows
