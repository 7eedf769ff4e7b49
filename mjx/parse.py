"""Plain trees (YAML, JSON) into frozen dataclasses: keys and types checked, errors as sentences."""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import pydantic

from mjx.errors import InputError


def parse(kind: Any, value: Any, path: str) -> Any:
    """`value` as a `kind`, its keys checked first, then its values; `path` is its name in errors.

    Raises:
        InputError: a key is unknown (the nearest is named), or a value is not accepted.
    """
    _check_type_keys(kind, value, path)
    try:
        return pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        raise InputError("\n".join(_sentence(path, part) for part in error.errors())) from error


def _check_type_keys(kind: Any, value: Any, path: str) -> None:
    """Unknown keys anywhere below, and truth values for numbers, before other values are looked at."""
    if isinstance(value, dict):
        for candidate in _dataclasses_in(kind):
            hints = typing.get_type_hints(candidate)
            fields = {field.name: hints[field.name] for field in dataclasses.fields(candidate)}
            check_keys(value, fields, f"{path}.")
            for name, inner in value.items():
                _check_type_keys(fields[name], inner, f"{path}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_type_keys(kind, inner, f"{path}.{index}")
    elif isinstance(value, bool) and kind in (int, float, int | None, float | None):
        # pydantic would take true for 1.
        raise InputError(f"{path} = {str(value).lower()} is not accepted: input should be a number")


def _dataclasses_in(kind: Any) -> list[type]:
    """The dataclasses of a type like `X`, `X | None` or `tuple[X, ...]`; not of mappings' values."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return [kind]
    if typing.get_origin(kind) in (typing.Union, types.UnionType, tuple, list):
        return [found for argument in typing.get_args(kind) for found in _dataclasses_in(argument)]
    return []


def check_keys(tree: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> None:
    """Raise `InputError` for a key that is not known."""
    for key in tree:
        if key not in known:
            raise InputError(f"the key {prefix}{key} does not exist ({nearest(str(key), known)})")


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """`did you mean X?`, or all that is known."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


_EXPECTED = {
    "tuple_type": "input should be a list",
    "dataclass_type": "input should be a mapping of its keys",
}
"""What YAML calls it, where pydantic's word is Python's."""


def _sentence(section: str, error: Any) -> str:
    """pydantic's error in our words: the key's whole path, the value, what would be right."""
    path = ".".join([section, *(str(part) for part in error["loc"])])
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        message = str(cause)
        parent, _, name = path.rpartition(".")
        if message.startswith(f"{path}."):
            return message
        if message.startswith(f"{name}."):
            return f"{parent}.{message}" if parent else message
        return f"{path}.{message}" if re.match(r"[\w.]+ = ", message) else f"{path}: {message}"
    if error["type"] == "missing":
        return f"{path} is missing: the recipe has to say it"
    said = _EXPECTED.get(error["type"]) or error["msg"][0].lower() + error["msg"][1:]
    return f"{path} = {error['input']!r} is not accepted: {said}"
