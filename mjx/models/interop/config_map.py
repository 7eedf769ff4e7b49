"""One table, read in both directions: another library's config keys ↔ the fields of a model's config.

A table is a list of entries. Most are a `Key`: one key of theirs, one field of ours (or several that it
decides). What takes more than that is an entry of its own with the same three members. A key that the
table does not know is an error, never passed over: it may change what the model computes. Only where a
config holds a whole run as well as a model, the table names what it must not have (`Absent`) instead.
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


class Theirs(dict[str, Any]):
    """Another library's config, and what sentences about it call it: "config.json"."""

    def __init__(self, values: Mapping[str, Any], where: str):
        super().__init__(values)
        self.where = where


class Entry(Protocol):
    """Some keys of theirs, and the fields of ours that they decide."""

    def names(self) -> Sequence[str]:
        """All that it may read."""
        ...

    def ours(self, theirs: Theirs) -> Fields:
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

    def ours(self, theirs: Theirs) -> Fields:
        given = [name for name in self.names() if name in theirs]
        name = given[0] if given else self.name
        value = theirs.get(name)
        for other in given[1:]:
            if theirs[other] != value:
                raise InputError(
                    f'{theirs.where} has "{name}": {shown(value)} and "{other}": {shown(theirs[other])}, '
                    "which mean the same and should be equal"
                )
        if value is None and not (self.null and name in theirs):
            if self.default is REQUIRED:
                raise InputError(f'{theirs.where} has no "{self.name}"')
            value = self.default
        if self.values is not None:
            if not isinstance(value, Hashable) or value not in self.values:
                known = ", ".join(map(str, self.values))
                raise InputError(f'{theirs.where} has "{name}": {shown(value)}; known are {known}')
            value = self.values[value]
        fields = (self.fields,) if isinstance(self.fields, str) else self.fields
        return dict.fromkeys(fields, value)

    def theirs(self, config: Any) -> dict[str, Any]:
        fields = (self.fields,) if isinstance(self.fields, str) else self.fields
        # Of a mixer that the model does not have nothing is said: null is no number to their library.
        fields = [field for field in fields if "." not in field or get(config, field.rpartition(".")[0])]
        if not fields:
            return {}
        values = [get(config, field) for field in fields]
        value = next((value for value in values if value is not None), None)
        if self.values is not None:
            value = next((theirs for theirs, ours in self.values.items() if ours == value), None)
        return {self.name: value}


@dataclasses.dataclass(frozen=True)
class ResolvedKey(Key):
    """A size of a mixer, which is written even where ours leaves it to follow from other sizes."""

    def theirs(self, config: Any) -> dict[str, Any]:
        fields = (self.fields,) if isinstance(self.fields, str) else self.fields
        name = fields[0].partition(".")[0]
        mixer = getattr(config, name)
        if mixer is None:
            return super().theirs(config)
        return super().theirs(dataclasses.replace(config, **{name: mixer.resolve(config.hidden_size)}))


@dataclasses.dataclass(frozen=True)
class Only:
    """A key of which we compute one value; missing or null means that one too."""

    name: str
    value: Any

    def names(self) -> Sequence[str]:
        return (self.name,)

    def ours(self, theirs: Theirs) -> Fields:
        found = theirs.get(self.name)
        if found is not None and found != self.value:
            raise InputError(
                f'{theirs.where} has "{self.name}": {shown(found)}, which mjx does not compute; '
                f"only {shown(self.value)} is known"
            )
        return {}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {self.name: self.value}


@dataclasses.dataclass(frozen=True)
class Absent:
    """Keys that ask for what we do not have; missing, null, false, 0 and empty do not ask."""

    keys: tuple[str, ...]

    def names(self) -> Sequence[str]:
        return self.keys

    def ours(self, theirs: Theirs) -> Fields:
        asked = [f'"{key}": {shown(theirs[key])}' for key in self.keys if theirs.get(key)]
        if asked:
            raise InputError(f"{theirs.where} has {', '.join(asked)}, which mjx does not compute")
        return {}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True)
class Constant:
    """A field that has one value in every model of this kind."""

    field: str
    value: Any

    def names(self) -> Sequence[str]:
        return ()

    def ours(self, theirs: Theirs) -> Fields:
        return {self.field: self.value}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {}


class ConfigMap:
    """A table for one kind of model.

    Args:
        kind: the class of our config.
        entries: the table; where two decide one field, the later one does.
        without_meaning: keys that change nothing of what is computed.
        closed: whether a key that the table does not know is refused.
    """

    def __init__(
        self,
        kind: type,
        entries: Sequence[Entry],
        without_meaning: Sequence[str] = (),
        *,
        closed: bool = True,
    ):
        self.kind = kind
        self.entries = tuple(entries)
        self.known = {key for entry in entries for key in entry.names()} | set(without_meaning)
        self._closed = closed

    def to_ours(self, theirs: Mapping[str, Any], where: str) -> Any:
        """Our config; `where` is what sentences call theirs.

        Raises:
            InputError: a key or a value that is not known, or that we would compute differently; all of them.
        """
        tree = self.to_tree(theirs, where)
        try:
            return parse(self.kind, tree, "model")
        except InputError as error:
            raise InputError(f"{where} describes a model that mjx cannot build: {error}") from error

    def to_tree(self, theirs: Mapping[str, Any], where: str) -> dict[str, Any]:
        """What `to_ours` makes our config of, in nested dicts."""
        named = Theirs(theirs, where)
        for key, value in theirs.items():
            if self._closed and key not in self.known and value not in (None, False, [], {}):
                raise InputError(
                    f'{where} has "{key}": {shown(value)}, which mjx does not know for this model; '
                    "if it has no influence on what the model computes, take it out of the file"
                )
        fields: Fields = {}
        refused: list[str] = []
        for entry in self.entries:
            try:
                fields.update(entry.ours(named))
            except InputError as error:
                refused.append(str(error))
            except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
                found = {name: theirs[name] for name in entry.names() if name in theirs}
                wrong = f"{where} has values of a wrong type: {shown(found)}"
                raise InputError("; ".join([*refused, wrong])) from error
        if refused:
            raise InputError("; ".join(dict.fromkeys(refused)))
        # Entries that kinds of models share speak of mixers that this one may not have (`moe.mlp.bias`).
        known = dataclasses.fields(self.kind) if dataclasses.is_dataclass(self.kind) else ()
        has = {field.name for field in known} or {path.split(".")[0] for path in fields}
        return _tree(
            {path: value for path, value in fields.items() if path.split(".")[0] in has or "." not in path}
        )

    def to_theirs(self, config: Any) -> dict[str, Any]:
        """Their keys. What their kind of model cannot say is lost: compare with `to_ours` of the result."""
        theirs: dict[str, Any] = {}
        for entry in self.entries:
            theirs.update(entry.theirs(config))
        return theirs


def get(config: Any, path: str) -> Any:
    """The value of a field; None where a part of the path is None, or the model has no such part."""
    for name in path.split("."):
        config = None if config is None else getattr(config, name, None)
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
    return json.dumps(value, default=str)
