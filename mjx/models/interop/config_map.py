"""One table, read in both directions: another library's config keys ↔ the fields of a model's config.

A table is a list of entries. Most are a `Key`: one key of theirs, one field of ours (or several that it
decides). What takes more than that is an entry of its own with the same three members. A key that the
table does not know is an error, never passed over: it may change what the model computes.
"""

import dataclasses
import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from mjx.errors import InputError
from mjx.parse import parse

REQUIRED = object()
"""The default of a key that a config must have."""

Fields = dict[str, Any]
"""Dotted path of a field of ours (`attention.num_heads`) → its value."""


class Entry(Protocol):
    """Some keys of theirs, and the fields of ours that they decide."""

    def names(self) -> Sequence[str]:
        """All that it may read."""
        ...

    def ours(self, theirs: Mapping[str, Any]) -> Fields:
        """Raises InputError, naming the key, for a value that we would compute differently."""
        ...

    def theirs(self, config: Any) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Key:
    """One key, whose value is that of a field."""

    name: str
    fields: str | tuple[str, ...]
    default: Any = REQUIRED
    """What their library takes where the key is missing."""
    values: Mapping[Any, Any] | None = None
    """Their values → ours, where they are spelled differently; others are refused."""
    null: bool = False
    """Whether null is a value, rather than as good as missing."""
    also: tuple[str, ...] = ()
    """Other spellings of the key."""

    def names(self) -> Sequence[str]:
        return (self.name, *self.also)

    def ours(self, theirs: Mapping[str, Any]) -> Fields:
        name = next((name for name in self.names() if name in theirs), self.name)
        value = theirs.get(name)
        if value is None and not (self.null and name in theirs):
            if self.default is REQUIRED:
                raise InputError(f'config.json has no "{self.name}"')
            value = self.default
        if self.values is not None:
            if not isinstance(value, Hashable) or value not in self.values:
                known = ", ".join(map(str, self.values))
                raise InputError(f'config.json has "{name}": {shown(value)}; known are {known}')
            value = self.values[value]
        fields = (self.fields,) if isinstance(self.fields, str) else self.fields
        return dict.fromkeys(fields, value)

    def theirs(self, config: Any) -> dict[str, Any]:
        value = get(config, self.fields if isinstance(self.fields, str) else self.fields[0])
        if self.values is not None:
            value = next((theirs for theirs, ours in self.values.items() if ours == value), None)
        return {self.name: value}


@dataclasses.dataclass(frozen=True)
class Only:
    """A key of which we compute one value; missing or null means that one too."""

    name: str
    value: Any

    def names(self) -> Sequence[str]:
        return (self.name,)

    def ours(self, theirs: Mapping[str, Any]) -> Fields:
        found = theirs.get(self.name)
        if found is not None and found != self.value:
            raise InputError(
                f'config.json has "{self.name}": {shown(found)}, which mjx does not compute; '
                f"only {shown(self.value)} is known"
            )
        return {}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {self.name: self.value}


@dataclasses.dataclass(frozen=True)
class Constant:
    """A field that has one value in every model of this kind."""

    field: str
    value: Any

    def names(self) -> Sequence[str]:
        return ()

    def ours(self, theirs: Mapping[str, Any]) -> Fields:
        return {self.field: self.value}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {}


class ConfigMap:
    """A table for one kind of model.

    Args:
        kind: the class of our config.
        entries: the table; where two decide one field, the later one does.
        without_meaning: keys that change nothing of what is computed.
    """

    def __init__(self, kind: type, entries: Sequence[Entry], without_meaning: Sequence[str] = ()):
        self.kind = kind
        self._entries = tuple(entries)
        self.known = {key for entry in entries for key in entry.names()} | set(without_meaning)

    def to_ours(self, theirs: Mapping[str, Any]) -> Any:
        """Our config.

        Raises:
            InputError: a key or a value that is not known, or that we would compute differently.
        """
        for key, value in theirs.items():
            if key not in self.known and value not in (None, False, [], {}):
                raise InputError(
                    f'config.json has "{key}": {shown(value)}, which mjx does not know for this model; '
                    "if it has no influence on what the model computes, take it out of the file"
                )
        fields: Fields = {}
        for entry in self._entries:
            try:
                fields.update(entry.ours(theirs))
            except InputError:
                raise
            except (TypeError, ValueError, AttributeError) as error:
                found = {name: theirs[name] for name in entry.names() if name in theirs}
                raise InputError(f"config.json has values of a wrong type: {shown(found)}") from error
        try:
            return parse(self.kind, _tree(fields), "model")
        except InputError as error:
            raise InputError(f"config.json describes a model that mjx cannot build: {error}") from error

    def to_theirs(self, config: Any) -> dict[str, Any]:
        """Their keys. What their kind of model cannot say is lost: compare with `to_ours` of the result."""
        theirs: dict[str, Any] = {}
        for entry in self._entries:
            theirs.update(entry.theirs(config))
        return theirs


def get(config: Any, path: str) -> Any:
    """The value of a field; None where a part of the path is None."""
    for name in path.split("."):
        config = None if config is None else getattr(config, name)
    return config


def _tree(fields: Fields) -> dict[str, Any]:
    """Nested dicts; a field that is said to be None has no parts, whatever they would be."""
    tree: dict[str, Any] = {}
    for path, value in sorted(fields.items(), key=lambda item: item[0].count(".")):
        *parents, name = path.split(".")
        node: dict[str, Any] | None = tree
        for parent in parents:
            node = None if node is None else node.setdefault(parent, {})
        if node is not None:
            node[name] = value
    return tree


def shown(value: Any) -> str:
    """As it stands in the file."""
    return json.dumps(value)
