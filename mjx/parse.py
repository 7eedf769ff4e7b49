"""Plain trees (YAML, JSON) into frozen dataclasses: keys and types checked, errors as sentences."""

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import pydantic

from mjx.errors import InputError
from mjx.trees import Tree, Untyped, plain
from mjx.words import nearest

PRESET = "preset"
"""The key that names values to begin with, in the tree of a class that has a tag."""


@dataclasses.dataclass(frozen=True)
class Tag:
    """The `tag` of a base class whose trees name the class that they describe: `{family: gpt, …}`.

    A class that can be named has its name as the class attribute `key`, and inherits the tag.
    """

    key: str
    """Of the tree, and of the class attribute."""
    names: Collection[str]
    """All that can be named."""
    load: Callable[[str], tuple[type, Mapping[str, Any]]]
    """Name → the class, and its presets."""
    default: str | None = None
    """The class of a tree that names none."""
    prefix: str = ""
    """What the classes' own errors call the place where they usually stand (`model.`), to be put right."""


class _Named(NamedTuple):
    """A tree and the class that it names."""

    kind: type
    tree: Tree


def parse(kind: Any, value: Any, path: str) -> Any:
    """`value` as a `kind`, its keys checked first, then its values; `path` is its name in errors.

    Raises:
        InputError: a key is unknown (the nearest is named), or a value is not accepted.
    """
    return _validate(kind, _instances(_resolve(kind, value, path), path), path)


def to_tree(value: Any) -> Any:
    """A config as nested dicts, lists and scalars that `parse` reads back, with the names of tagged classes
    at every level."""
    if dataclasses.is_dataclass(value):
        tag: Tag | None = getattr(value, "tag", None)
        named = {} if tag is None else {tag.key: getattr(value, tag.key)}
        return named | {
            field.name: to_tree(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {key: to_tree(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_tree(inner) for inner in value]
    return value


def _resolve(kind: Any, value: Any, path: str, below: Any = None) -> Any:
    """`value` over what a preset says (`below`), with a `_Named` for every tree of a tagged class.

    Unknown keys anywhere, and words of another kind than is wanted, are refused before other values are
    looked at.
    """
    members = list(_members(kind))
    if isinstance(value, Mapping):
        below, known = below if isinstance(below, Mapping) else {}, False
        for member in members:
            if isinstance(member, type) and isinstance(getattr(member, "tag", None), Tag):
                return _resolve_tagged(member, value, path, below)
            if isinstance(member, type) and dataclasses.is_dataclass(member):
                value, known = _resolve_fields(member, value, path, below), True
            elif typing.get_origin(member) in (dict, Mapping):
                of, known = typing.get_args(member)[1], True
                value = {
                    key: _resolve(of, inner, f"{path}.{key}", below.get(key))
                    for key, inner in {**below, **value}.items()
                }
        return value if known else plain(value)
    if isinstance(value, list):
        for member in members:
            if typing.get_origin(member) in (tuple, list):
                of = typing.Union[tuple(a for a in typing.get_args(member) if a is not ...)]  # noqa: UP007
                return [_resolve(of, inner, f"{path}.{index}") for index, inner in enumerate(value)]
        return plain(value)
    return _word(members, value, path)


def _word(members: list[Any], value: Any, path: str) -> Any:
    """A scalar as what is wanted: a word is text where text is, and that as its annotations read it."""
    bare = [typing.get_args(member)[0] if _annotated(member) else member for member in members]
    if isinstance(value, Untyped):
        value = value.text if _is_text(bare, value) else value.value
    if type(value) is int and str in bare and int not in bare:  # of JSON and of command lines
        value = str(value)
    if value == "None" and type(None) in bare:
        raise InputError(f"{path} = None is not accepted: the word is null")
    if isinstance(value, bool) and bool not in bare and (int in bare or float in bare):
        # pydantic would take true for 1.
        raise InputError(f"{path} = {shown(value)} is not accepted: input should be a number")
    if float in bare and _is_endless(value):
        raise InputError(f"{path} = {shown(value)} is not accepted: input should be a finite number")
    if isinstance(value, str):
        for read in (read for member in members if _annotated(member) for read in member.__metadata__):
            try:
                value = read(value)
            except InputError as error:
                raise InputError(f"{path} = {error}") from error
    return value


def _is_text(bare: list[Any], word: Untyped) -> bool:
    choices = [choice for member in bare for choice in typing.get_args(member)]
    return word.text in choices or (str in bare and type(word.value) not in bare)


def _is_endless(value: Any) -> bool:
    """Whether it is infinite or no number, in a word too."""
    try:
        return isinstance(value, float | str) and not math.isfinite(float(value))
    except ValueError:
        return False


def _annotated(member: Any) -> bool:
    return typing.get_origin(member) is typing.Annotated


def _resolve_tagged(base: type, value: Mapping, path: str, below: Mapping) -> _Named:
    tag: Tag = getattr(base, "tag")  # noqa: B009  # unknown to type checkers
    value = dict(value)
    own = getattr(base, tag.key, None)
    name = value.pop(tag.key, below.get(tag.key, own or tag.default))
    if name is None:
        raise InputError(f"{path}.{tag.key} is missing (choose from {', '.join(tag.names)})")
    if not isinstance(name, str) or name not in tag.names:
        raise InputError(f"{path}.{tag.key} = {name!r} is not known (choose from {', '.join(tag.names)})")
    kind, presets = tag.load(name)
    if not issubclass(kind, base):
        fitting = [other for other in tag.names if issubclass(tag.load(other)[0], base)]
        raise InputError(
            f"{path}.{tag.key} = {name!r} cannot stand here (choose from {', '.join(fitting) or 'none'})"
        )
    preset = value.pop(PRESET, None)
    if preset is not None:
        if preset not in presets:
            raise InputError(f"{path}.{PRESET} = {preset!r} is not known ({nearest(str(preset), presets)})")
        below = to_tree(presets[preset])
    elif below.get(tag.key) != name:
        below = {}  # of another class
    below = {key: inner for key, inner in below.items() if key != tag.key}
    return _Named(kind, _resolve_fields(kind, value, path, below))


def _resolve_fields(kind: type, value: Mapping, path: str, below: Mapping) -> Tree:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    check_keys(value, fields, f"{path}.")
    return {
        name: _resolve(fields[name], inner, f"{path}.{name}", below.get(name))
        for name, inner in {**below, **value}.items()
    }


def _members(kind: Any) -> Iterator[Any]:
    """The types of a union; a type alone."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        for member in typing.get_args(kind):
            yield from _members(member)
    else:
        yield kind


def _instances(value: Any, path: str) -> Any:
    """`value` with an instance in the place of every `_Named`."""
    if isinstance(value, _Named):
        return _validate(value.kind, _instances(value.tree, path), path)
    if isinstance(value, dict):
        return {key: _instances(inner, f"{path}.{key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_instances(inner, f"{path}.{index}") for index, inner in enumerate(value)]
    return value


def _validate(kind: Any, value: Any, path: str) -> Any:
    try:
        return _validator(kind).validate_python(value)
    except pydantic.ValidationError as error:
        tag: Tag | None = getattr(kind, "tag", None)
        prefix = "" if tag is None else tag.prefix
        raise InputError("\n".join(_sentence(path, part, prefix) for part in error.errors())) from error


@functools.cache
def _validator(kind: Any) -> pydantic.TypeAdapter:
    """Made once: it takes longer than what it is made for."""
    return pydantic.TypeAdapter(kind)


class UnknownKeyError(InputError):
    """A key that does not exist."""

    def __init__(self, path: str, hint: str):
        super().__init__(f"the key {path} does not exist ({hint})")
        self.path = path


def check_keys(tree: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> None:
    """Raise `UnknownKeyError` for a key that is not known."""
    for key in tree:
        if key not in known:
            raise UnknownKeyError(f"{prefix}{key}", nearest(str(key), known))


def paths_of(kind: Any, tree: Any, path: str) -> Iterator[str]:
    """The dotted paths of what may be said of a `kind`, its tagged classes being those that `tree` names."""
    tree = tree if isinstance(tree, Mapping) else {}
    for member in _members(kind):
        tag = getattr(member, "tag", None)
        if isinstance(tag, Tag):
            name = tree.get(tag.key, tag.default)
            member = tag.load(name)[0] if isinstance(name, str) and name in tag.names else None
        if isinstance(member, type) and dataclasses.is_dataclass(member):
            for name, inner in typing.get_type_hints(member).items():
                if name in {field.name for field in dataclasses.fields(member)}:
                    yield f"{path}.{name}"
                    yield from paths_of(inner, tree.get(name), f"{path}.{name}")


_EXPECTED = {
    "tuple_type": "input should be a list",
    "string_type": "input should be text",
    "dataclass_type": "input should be a mapping of its keys",
}
"""What YAML calls it, where pydantic's word is Python's."""


def _sentence(section: str, error: Any, prefix: str) -> str:
    """pydantic's error in our words: the key's whole path, the value, what would be right; `prefix` is what
    the class calls its own place."""
    path = ".".join([section, *(str(part) for part in error["loc"])])
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        message = str(cause)
        if prefix and message.startswith(prefix):
            return f"{section}.{message.removeprefix(prefix)}"
        parts = path.split(".")
        for at in range(len(parts)):  # a class calls its own place by the whole path, or by its end
            own = ".".join(parts[at:])
            if message.startswith(f"{own}."):
                return f"{path}{message.removeprefix(own)}"
        return f"{path}.{message}" if re.match(r"[\w.]+ = ", message) else f"{path}: {message}"
    if error["type"] == "missing":
        return f"{path} is missing: the recipe has to say it"
    said = _EXPECTED.get(error["type"]) or error["msg"][0].lower() + error["msg"][1:]
    return f"{path} = {shown(error['input'])} is not accepted: {said}"


def shown(value: Any) -> str:
    """As YAML spells it, text in quotes."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)
