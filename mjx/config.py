"""Recipes: YAML files parsed into the components' own typed configs, with overrides from the command line."""

import dataclasses
import difflib
import io
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from mjx import models
from mjx.data.config import DataConfig
from mjx.errors import InputError
from mjx.inference.sampling import SamplingConfig
from mjx.launch.runtime import RuntimeConfig
from mjx.launch.watchdog import WatchdogConfig
from mjx.models.family import ModelConfig
from mjx.sharding import MeshConfig, ShardingConfig
from mjx.training.checkpoint import CheckpointConfig
from mjx.training.config import TrainingConfig
from mjx.training.metrics import LoggingConfig
from mjx.training.optimizer import OptimizerConfig
from mjx.training.profiler import ProfileConfig
from mjx.training.schedule import ScheduleConfig

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run. Each section is the config of the component that reads it."""

    model: ModelConfig
    """A family and its sizes: `family`, then `preset` or the fields of the family's own config."""
    data: DataConfig
    """What it reads: corpora, tokenizer, sequence length."""
    training: TrainingConfig
    """How long, how much at a time."""
    mesh: MeshConfig = MeshConfig()
    """Sizes of the mesh axes: the kinds of parallelism."""
    sharding: ShardingConfig = dataclasses.field(default_factory=ShardingConfig)
    """Which mesh axes the logical axes live on."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Kind of optimizer, weight decay, clipping."""
    schedule: ScheduleConfig = ScheduleConfig()
    """The learning rate over the steps."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """How often the state is saved, and how many of them stay."""
    logging: LoggingConfig = LoggingConfig()
    """Where the metrics go, and how often."""
    profile: ProfileConfig = ProfileConfig()
    """Which steps are profiled."""
    sampling: SamplingConfig = SamplingConfig()
    """How text is continued."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Processes and devices."""
    watchdog: WatchdogConfig = WatchdogConfig()
    """How long a step may take before the run is ended."""
    run_dir: str = "runs/default"
    """Where the run keeps everything: checkpoints, logs, pictures."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A recipe with `key.path=value` overrides.

    Raises:
        InputError: the file is not there or not YAML, a key is unknown (the nearest is named) or
            given twice, or a value is not accepted; the sentence says where.
    """
    tree = read_yaml(path)
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree)


def parse_config(tree: Mapping[str, Any]) -> RunConfig:
    """A recipe's nested dicts as typed configs."""
    tree = dict(tree)
    family, model = _expand_model(tree.get("model"))
    tree["model"] = model
    config_class = models.load_family(family).CONFIG
    hints = typing.get_type_hints(RunConfig) | {"model": config_class}
    sections = {field.name: hints[field.name] for field in dataclasses.fields(RunConfig)}
    _check_keys(tree, sections, "")
    parsed = {}
    for name, value in tree.items():
        parsed[name] = _parse(sections[name], value, name)
    for field in dataclasses.fields(RunConfig):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in parsed:
            parsed[field.name] = _parse(sections[field.name], {}, field.name)
    return RunConfig(**parsed)


def read_yaml(path: str | Path) -> Tree:
    """A YAML 1.2 file whose top is a mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the recipe {path} is not UTF-8 text") from error
    tree = _yaml_value(text, f"the recipe {path}")
    if not isinstance(tree, dict):
        raise InputError(f"the recipe {path} is not a mapping of sections (model, data, training, …)")
    return tree


def apply_override(tree: Tree, override: str) -> None:
    """Set one `key.path=value` in nested dicts; the value is YAML."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"'{override}' is not an override; write key.path=value, e.g. training.steps=100")
    *sections, name = key.split(".")
    node = tree
    for section in sections:
        if not isinstance(node.get(section), dict):
            node[section] = {}
        node = node[section]
    node[name] = _yaml_value(text, f"the value of {key}")


def to_tree(config: RunConfig) -> Tree:
    """The whole config as nested dicts that `parse_config` reads back, the model's family included."""
    tree = _plain(dataclasses.asdict(config))
    family = next(n for n in models.FAMILIES if isinstance(config.model, models.load_family(n).CONFIG))
    tree["model"] = {"family": family, **tree["model"]}
    return tree


def to_yaml(tree: Tree) -> str:
    """Nested dicts as YAML."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def difference_from_defaults(config: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted key → (default, value) of everything that a recipe decided."""
    return {
        key: (None if default is dataclasses.MISSING else default, value)
        for key, default, value in _walk_defaults(config, "")
        if default is dataclasses.MISSING or default != value
    }


def _walk_defaults(config: Any, prefix: str):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value) and (
            default is dataclasses.MISSING or type(default) is type(value)
        ):
            yield from _walk_defaults(value, f"{key}.")
        else:
            yield key, default, value


def _expand_model(section: Any) -> tuple[str, Tree]:
    """The family, and its config's tree with a preset's values under the section's own."""
    if not isinstance(section, dict):
        raise InputError(
            f"the recipe has no section 'model' (at least a family: {' or '.join(models.FAMILIES)})"
        )
    section = dict(section)
    family = section.pop("family", None)
    if not isinstance(family, str):
        raise InputError(f"model.family is missing (choose from {', '.join(models.FAMILIES)})")
    published = models.load_family(family).PUBLISHED
    preset = section.pop("preset", None)
    if preset is None:
        return family, section
    if preset not in published:
        raise InputError(f"model.preset = {preset!r} is not known ({_nearest(str(preset), published)})")
    return family, _merge(_plain(dataclasses.asdict(published[preset])), section)


def _merge(base: Tree, over: Mapping[str, Any]) -> Tree:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _parse(kind: Any, value: Any, path: str) -> Any:
    """One section, its keys checked first, then its values."""
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
            _check_keys(value, fields, f"{path}.")
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


def _check_keys(tree: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> None:
    for key in tree:
        if key not in known:
            raise InputError(f"the key {prefix}{key} does not exist ({_nearest(str(key), known)})")


def _nearest(name: str, known: Mapping[str, Any]) -> str:
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


def _yaml_value(text: str, what: str) -> Any:
    try:
        return _plain(YAML(typ="safe", pure=True).load(text))
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


def _plain(node: Any) -> Any:
    """Plain dicts, lists and scalars."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    return node
