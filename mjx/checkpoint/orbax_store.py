"""The only module that talks to Orbax: arrays by name, into one folder and out of it.

Its API has moved twice and is about to move again (`orbax.checkpoint.v1`); what mjx needs of it is below.
"""

import contextlib
import importlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import jax
import numpy as np

from mjx.checkpoint.names import (
    ArrayType,
    Name,
    array_type,
    check_same_arrays,
    named_leaves,
)
from mjx.errors import InputError
from mjx.files import write_whole
from mjx.trees import nest

UNFINISHED_SUFFIX = ".orbax-checkpoint-tmp"
"""What Orbax appends to a folder's name until everything is in it; the last act is the rename."""


FILES = "files.json"
"""In a checkpoint's folder: its files and their sizes. Checkpoints of earlier versions have none."""


class DamagedError(InputError):
    """A checkpoint that cannot be read, or not all of it."""

    def __init__(self, folder: Path, reason: str):
        super().__init__(
            f"The checkpoint {folder} cannot be read: {reason}. Restore another one, or delete it."
        )
        self.reason = reason


class SaveInProgress(Protocol):
    def result(self, timeout: float | None = None) -> None:
        """Waits for the end of the save and raises what went wrong in it."""
        ...


def orbax() -> ModuleType:
    # What fails is told to whoever waits for it; Orbax's threads and tasks print the same tracebacks as well.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_an_echo)
    try:
        return importlib.import_module("orbax.checkpoint.v1")
    except ModuleNotFoundError:
        return importlib.import_module("orbax.checkpoint.experimental.v1")


def arrays_to_save(state: Any) -> dict[Name, Any]:
    """The arrays of `state` by name, such that nothing the caller does next can change what is saved.

    A `jax.Array` needs no copy. On an accelerator its bytes are on the host before the save returns. On a
    CPU Orbax holds a view of the buffer, and a step that is given a viewed buffer by donation writes
    elsewhere. Numpy arrays Orbax copies.
    """
    named: dict[Name, Any] = {}
    for name, leaf in named_leaves(state).items():
        dotted = ".".join(name)
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise TypeError(
                f"{dotted} of the state is a {type(leaf).__name__}; a checkpoint holds arrays only."
            )
        if isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(
                f"{dotted} of the state is a typed PRNG key; keep jax.random.key_data of it there."
            )
        if isinstance(leaf, jax.Array) and jax.process_count() > 1 and leaf.is_fully_addressable:
            raise ValueError(
                f"{dotted} of the state lies on this process alone; with several processes every array of "
                "the state must be on the mesh, a scalar too (give it a replicated sharding)."
            )
        if leaf.size == 0:  # Orbax refuses these, and there is nothing to keep.
            continue
        named[name] = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    return named


def start_saving(
    folder: Path, named: Mapping[Name, Any], metadata: dict[str, Any], timeout: float
) -> SaveInProgress:
    """Begins to write the arrays and the JSON `metadata`; `folder` appears when all of it is there.

    Every process calls this and writes its shards. Returns when the arrays may be overwritten.
    """
    ocp = orbax()
    context = ocp.Context()
    context.asynchronous.timeout_secs = max(1, int(timeout))
    # A training loop forbids implicit transfers; moving arrays to the host is what a save is for.
    with context, jax.transfer_guard("allow"):
        return ocp.save_async(folder, nest(named), custom_metadata=metadata)


def record_files(folder: Path) -> None:
    """Writes down what belongs to the checkpoint, for `check_files`."""
    with contextlib.suppress(OSError, InputError):  # the checkpoint is whole without
        write_whole(folder / FILES, json.dumps(_sizes(folder)))


def check_files(folder: Path) -> None:
    """Raises DamagedError when the checkpoint is not whole, as far as can be seen without reading it."""
    try:
        recorded = json.loads((folder / FILES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        recorded = {}
    except (OSError, ValueError) as error:
        raise DamagedError(folder, f"{FILES}: {error}") from error
    there = _sizes(folder)
    for name, size in recorded.items():
        if name not in there:
            raise DamagedError(folder, f"{name} is missing")
        if there[name] < size:  # more: a file system may have shown an older size to `record_files`
            raise DamagedError(folder, f"{name} has {there[name]} of its {size} bytes")
    read_metadata(folder)


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != FILES)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(files)}


def read_metadata(folder: Path) -> tuple[dict[Name, ArrayType], dict[str, Any]]:
    """The types of the arrays in a checkpoint, and the metadata it was saved with."""

    def look(ocp: ModuleType) -> Any:
        found = ocp.metadata(folder)
        if not found.metadata:  # Orbax only logs that it could not read the arrays' descriptions.
            raise ValueError("the description of its arrays is damaged")
        return found

    found = _reading(folder, look)
    saved = {name: array_type(leaf) for name, leaf in named_leaves(found.metadata).items()}
    return saved, dict(found.custom_metadata or {})


def read_arrays(folder: Path, abstract: Any, *, partial: bool = False, cast: bool = False) -> Any:
    """A tree like `abstract`, whose leaves are `jax.ShapeDtypeStruct` with shardings of any mesh.

    Raises InputError, before anything is read, when the checkpoint holds other arrays. With `partial`,
    entries at the root of the checkpoint that `abstract` lacks are passed over; with `cast`, floating-point
    arrays are converted to the type that `abstract` asks for.
    """
    wanted = {name: leaf for name, leaf in named_leaves(abstract).items() if leaf.size}
    saved, _ = read_metadata(folder)
    if partial:
        roots = {name[0] for name in wanted}
        saved = {name: kind for name, kind in saved.items() if name[0] in roots}
    check_same_arrays(
        saved,
        {name: array_type(leaf) for name, leaf in wanted.items()},
        f"The checkpoint {folder}",
        cast=cast,
    )
    targets = nest({name: _placed(name, leaf) for name, leaf in wanted.items()})

    def load(ocp: ModuleType) -> Any:
        context = ocp.Context()
        context.pytree.loading.partial_load = partial
        with context, jax.transfer_guard("allow"):
            return ocp.load(folder, targets)

    read = named_leaves(_reading(folder, load))
    leaves = [
        read[name] if leaf.size else jax.numpy.zeros(leaf.shape, leaf.dtype, device=leaf.sharding)
        for name, leaf in named_leaves(abstract).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def size_in_bytes(named: Mapping[Name, Any]) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in named.values())


def _reading(folder: Path, read: Any) -> Any:
    ocp = orbax()
    absl = logging.getLogger("absl")
    absl.addFilter(_is_no_word)  # what it would say of a damaged file, in twenty lines, is said below
    try:
        return read(ocp)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedError(folder, reason[:300].rstrip(". ")) from error
    finally:
        absl.removeFilter(_is_no_word)


def _placed(name: Name, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    if leaf.sharding is not None:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    if jax.process_count() > 1:
        raise ValueError(f"{'.'.join(name)} is to be restored by several processes and needs a sharding.")
    # Left to itself Orbax would look for the devices of the run that saved.
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)


def _is_no_word(_: logging.LogRecord) -> bool:
    return False


def _is_not_an_echo(record: logging.LogRecord) -> bool:
    echoes = ("_SignalingThread.run() raised", "exception was never retrieved")
    return not any(echo in str(record.msg) for echo in echoes)
