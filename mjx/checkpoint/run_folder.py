"""The folder of one run: what lies in it under which name, and who may write to it."""

import os
from pathlib import Path
from typing import Any

from mjx.checkpoint.folder_lock import FolderLock
from mjx.errors import InputError
from mjx.files import local_path, write_whole
from mjx.launch.primary import on_primary


class RunFolder:
    """`runs/<name>`. Looking at a run needs no more than this object; writing to it needs `claim()`.

    ```
    with RunFolder("runs/gpt2") as folder:    # claims it; free again at the end, or when the process dies
        folder.write_config(text)
    ```
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(local_path(path)).absolute()
        self._lock = FolderLock(self.path / "run.lock", self.path)

    @property
    def config(self) -> Path:
        """The resolved config, YAML."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """One folder per step, written by `mjx.checkpoint.checkpointer.Checkpointer`."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object per line, one line per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def loss_plot(self) -> Path:
        return self.path / "loss.png"

    @property
    def sample(self) -> Path:
        """What the model generated last."""
        return self.path / "sample.txt"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's files, so that the folder alone is enough to use the model."""
        return self.path / "tokenizer"

    @property
    def huggingface(self) -> Path:
        """config.json and its companions of the Hugging Face model that the run began with, for an export."""
        return self.path / "huggingface"

    @property
    def claimed(self) -> bool:
        """Whether this process holds the folder's lock; of a run's processes only process 0 does."""
        return self._lock.held

    def claim(self) -> "RunFolder":
        """Makes the folder and locks it for this run; every process of the run calls this.

        Raises InputError when the folder cannot be made, or when a live run holds it: then the message
        names that run's host, process and start time. The lock of a run that crashed is free.
        """
        on_primary(self._claim)
        return self

    def release(self) -> None:
        self._lock.release()

    def write_config(self, text: str) -> None:
        """Puts `text` in `config.yaml`; a reader finds the old text or the new, never half of one."""
        on_primary(lambda: write_whole(self.config, text))

    def _claim(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise InputError(f"The run folder {self.path} cannot be used: {error.strerror}.") from error

    def __enter__(self) -> "RunFolder":
        return self.claim()

    def __exit__(self, *_: Any) -> None:
        self.release()
