"""A folder belongs to one run at a time."""

import logging
import os
from pathlib import Path

from mjx.errors import InputError
from mjx.files import FileLock, InUseError


class FolderLock(FileLock):
    """The lock of a run on `folder`; where a file system has no locks, a warning says so."""

    def __init__(self, file: str | os.PathLike[str], folder: str | os.PathLike[str]):
        """`file` is what is locked, `folder` what the message calls the thing that is in use."""
        super().__init__(file)
        self.folder = Path(folder)

    def acquire(self, timeout: float = 0.0) -> str | None:
        """Raises InputError, naming host, process and start of the holder, when another one holds it."""
        try:
            refusal = super().acquire(timeout)
        except InUseError as holder:
            raise InputError(
                f"{self.folder} is in use by a live run: {holder}. "
                "Stop that run, or give this one another folder."
            ) from None
        if refusal is not None:
            logging.getLogger(__name__).warning(
                "%s: this file system has no file locks (%s); two runs in one folder would not be noticed.",
                self.folder,
                refusal,
            )
        return refusal
