"""Pickles read without running anything: every class and function in them is replaced by a record.

Python's own unpickler imports and calls whatever a pickle names, so that reading a checkpoint can run any
code. Here nothing is imported and nothing called. Not even a list of harmless names has to be trusted: a
pickle that names `os.system` gives a `Record` of that name, and what asked for a tensor refuses it.
"""

import io
import pickle
from typing import Any

from mjx.errors import InputError


class Record:
    """An object of a pickle: the arguments that it would have been made with, and its state."""

    origin = ""
    """Full name of its class, or of the function that would have made it."""

    args: tuple[Any, ...]
    state: Any
    """What it would have been filled with; of plain objects a dict of their attributes."""

    def __new__(cls, *args: Any, **_: Any) -> "Record":
        record = super().__new__(cls)
        record.args, record.state = args, {}
        return record

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """An item of a kind of dict."""

    def append(self, item: Any) -> None:
        """An item of a kind of list."""

    extend = add = append

    def __getattr__(self, name: str) -> Any:
        state = self.__dict__.get("state")
        if isinstance(state, dict) and name in state:
            return state[name]
        raise AttributeError(f"{self.origin} has no {name}")


def origin(value: Any) -> str:
    """The full name of a record's class, or of a class that the pickle names; of anything else ''."""
    kind = value if isinstance(value, type) else type(value)
    return kind.origin if issubclass(kind, Record) else ""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name == "collections.OrderedDict":
            return dict
        if full_name == "torch.Size":
            return tuple
        return type(name, (Record,), {"origin": full_name})

    def persistent_load(self, pid: Any) -> Any:
        return pid


def read_pickle(data: bytes, what: str) -> Any:
    """The value in `data`: builtin ones as they are, torch.Size as a tuple, all other objects as records.

    Raises InputError, about `what`, when it is damaged.
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except Exception as error:  # damaged pickles raise nearly every kind
        raise InputError(f"{what} is damaged: {type(error).__name__}: {error}.") from error
