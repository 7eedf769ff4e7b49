"""Weights without the run: one folder with the parameters and the resolved config."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from mjx.checkpoint import orbax_store
from mjx.errors import InputError
from mjx.files import (
    check_free_space,
    disk_full_error,
    local_path,
    make_room,
    partial_path,
    publish_folder,
    remove,
)
from mjx.launch.primary import on_primary

CONFIG_FILE = "config.yaml"

_TIMEOUT = 3600.0


def save_weights(path: str | os.PathLike, params: Any, config: dict[str, Any] | str) -> None:
    """Writes `params` and `config.yaml` to the new folder `path`, which appears when it is complete.

    Orbax alone reads it, on any machine: `ocp.load(path)` gives numpy arrays in a dict of dicts. A config
    given as a dict is written as JSON, which is YAML too. All processes of a run call this.

    Raises InputError when `path` exists and is not an empty folder, or when the disk is full.
    """
    folder = Path(local_path(path)).resolve()
    partial = partial_path(folder)  # Orbax makes it: `new_folder` would be in its way
    named = orbax_store.arrays_to_save(params)
    needed = orbax_store.size_in_bytes(named)
    what = f"The weights {folder}"
    text = config if isinstance(config, str) else json.dumps(config, indent=2) + "\n"

    def prepare() -> None:
        make_room(folder)
        check_free_space(folder.parent, needed, what)
        unfinished = partial.with_name(partial.name + orbax_store.UNFINISHED_SUFFIX)
        with contextlib.suppress(FileNotFoundError):  # of a process that was killed
            remove(unfinished)

    def publish() -> None:
        _record_as_numpy(partial)
        (partial / CONFIG_FILE).write_text(text, encoding="utf-8")
        publish_folder(folder)

    try:
        on_primary(prepare)
        orbax_store.start_saving(partial, named, {}, _TIMEOUT).result(_TIMEOUT)
        on_primary(publish)
    except InputError:
        raise
    except Exception as error:
        full = disk_full_error(error, folder.parent, needed, what)
        if full is None:
            raise
        raise full from error


def load_weights(path: str | os.PathLike, abstract: Any) -> Any:
    """The weights in the folder `path`, as a tree like `abstract`, on its shardings and in its types.

    Raises InputError when the folder holds other parameters.
    """
    folder = Path(local_path(path)).absolute()
    if not folder.is_dir():
        raise InputError(f"There are no weights in {folder}: no such folder.")
    return orbax_store.read_arrays(folder, abstract, cast=True)


def _record_as_numpy(folder: Path) -> None:
    """Orbax would give arrays recorded as `jax.Array` back on the devices that saved them, or not at all."""
    for file in folder.glob("*/_METADATA"):
        metadata = json.loads(file.read_text(encoding="utf-8"))
        for entry in metadata["tree_metadata"].values():
            entry["value_metadata"]["value_type"] = "np.ndarray"
        file.write_text(json.dumps(metadata), encoding="utf-8")
