"""Plain trees of dicts: configs with their YAML, and arrays by name."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import ScalarNode

from mjx.errors import InputError

Tree = dict[str, Any]
"""Nested dicts by name: a config, or a model's arrays, e.g. `tree["embedding"]["weight"]`."""
Name = tuple[str, ...]
"""Where a leaf stands in a tree."""


@dataclasses.dataclass(frozen=True)
class Untyped:
    """A word that YAML takes for a number or a truth value; what it is, who wants it knows."""

    text: str
    """As it stands there: `007`, `1e5`, `true`."""
    value: Any
    """What it is where no text is wanted."""

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def name_of(path: Sequence[Any]) -> Name:
    """The name of the leaf that `jax.tree_util` found at `path`, whatever containers it went through."""
    keys = tuple(
        str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry)))) for entry in path
    )
    # A flax Variable is the array it holds: its one attribute is not a name of its own.
    is_variable = len(keys) > 1 and getattr(path[-1], "name", None) == "value"
    return keys[:-1] if is_variable else keys


def nest(named: Mapping[Name, Any]) -> Tree:
    """The tree whose leaves stand at these names."""
    tree: Tree = {}
    for name, leaf in named.items():
        branch = tree
        for key in name[:-1]:
            branch = branch.setdefault(key, {})
        branch[name[-1]] = leaf
    return tree


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """One dict, keyed by dotted path."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else key
        flat.update(flatten(value, path) if isinstance(value, dict) else {path: value})
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """The inverse of `flatten`."""
    return nest({tuple(path.split(".")): leaf for path, leaf in flat.items()})


def split(tree: Tree, chosen: Tree) -> tuple[Tree, Tree]:
    """Nested dicts in two: the leaves at whose paths `chosen` is true, and the others."""
    flat, marks = flatten(tree), flatten(chosen)
    return (
        unflatten({path: leaf for path, leaf in flat.items() if marks[path]}),
        unflatten({path: leaf for path, leaf in flat.items() if not marks[path]}),
    )


def join(one: Tree, other: Tree) -> Tree:
    """The inverse of `split`."""
    return unflatten({**flatten(one), **flatten(other)})


def read_untyped(path: str | Path) -> Tree:
    """A YAML 1.2 file whose top is a mapping, for `mjx.parse`: with `Untyped` words.

    Raises:
        InputError: it is not.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the recipe {path} is not UTF-8 text") from error
    tree = yaml_value(text, f"the recipe {path}")
    if not isinstance(tree, dict):
        raise InputError(f"the recipe {path} is not a mapping of sections (model, data, training, …)")
    return tree


def read_yaml(path: str | Path) -> Tree:
    """As `read_untyped`, with every word what YAML takes it for."""
    return plain(read_untyped(path))


def to_yaml(tree: Tree) -> str:
    """Nested dicts as YAML."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def merge(base: Tree, over: Mapping[str, Any]) -> Tree:
    """`base` with the leaves of `over` in place of its own."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def yaml_value(text: str, what: str) -> Any:
    """Parsed YAML, with `Untyped` words and keys that are text; `what` names it in errors.

    Raises:
        InputError: it is not YAML, or gives a key twice.
    """
    try:
        yaml = YAML(typ="safe", pure=True)
        yaml.Constructor = _Constructor
        return _with_text_keys(yaml.load(text))
    except DuplicateKeyError as error:
        raise InputError(f"{what} gives a key twice: {_problem(error)}") from error
    except YAMLError as error:
        raise InputError(f"{what} is not YAML: {_problem(error)}") from error


def _problem(error: YAMLError) -> str:
    """ruamel's error in one line."""
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"


class _Constructor(SafeConstructor):
    def construct_non_recursive_object(self, node: Any, tag: str | None = None) -> Any:
        if not isinstance(node, ScalarNode) or node.style is not None:  # quoted: said to be text
            return super().construct_non_recursive_object(node, tag)
        if str(node.tag).endswith(":timestamp"):  # no setting is a date
            return node.value
        try:
            value = super().construct_non_recursive_object(node, tag)
        except ValueError:  # `0b_` looks like a number and is none
            return node.value
        return value if value is None or isinstance(value, str) else Untyped(node.value, value)


def _with_text_keys(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {"null" if key is None else str(key): _with_text_keys(value) for key, value in node.items()}
    return [_with_text_keys(value) for value in node] if isinstance(node, list) else node


def plain(node: Any) -> Any:
    """Plain dicts, lists and scalars, `Untyped` words as what YAML takes them for."""
    if isinstance(node, Untyped):
        return node.value
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(value) for value in node]
    return node
