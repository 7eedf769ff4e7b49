"""Recipes: YAML files parsed into the components' own typed configs, with overrides from the command line."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mjx.checkpoint.checkpointer import CheckpointConfig
from mjx.data.config import DatasetConfig
from mjx.errors import InputError
from mjx.files import LocalPath
from mjx.inference.sampling import SamplingConfig
from mjx.launch.runtime import RuntimeConfig
from mjx.launch.watchdog import WatchdogConfig
from mjx.metrics.profiler import ProfileConfig
from mjx.metrics.sinks import LoggingConfig
from mjx.models import FAMILIES
from mjx.models.family import ModelConfig
from mjx.parse import UnknownKeyError, check_keys, parse, paths_of
from mjx.sharding import MeshConfig, ShardingConfig
from mjx.source import fill_in
from mjx.training.config import TrainingConfig
from mjx.training.optimizer import OptimizerConfig
from mjx.training.schedule import ScheduleConfig
from mjx.trees import Tree, read_untyped, yaml_value
from mjx.words import one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run. Each section is the config of the component that reads it."""

    model: ModelConfig
    """A family and its sizes: `family`, then `preset` or the fields of the family's own config."""
    data: DatasetConfig
    """What it reads: `kind` (left out: rows of tokens), and the fields of the kind's own config."""
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
    init_from: LocalPath | None = None
    """A Hugging Face folder or a run folder, whose weights training starts from. Its model is the run's:
    `model` need only say what differs of training's own choices (dropout, remat, dtype, …), and `data`
    no tokenizer."""
    run_dir: LocalPath = "runs/default"
    """Where the run keeps everything: checkpoints, logs, pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """What using a trained model takes: a run's config without its training."""

    model: ModelConfig
    """A family and its sizes."""
    mesh: MeshConfig = MeshConfig()
    """Sizes of the mesh axes: the kinds of parallelism."""
    sharding: ShardingConfig = dataclasses.field(default_factory=ShardingConfig)
    """Which mesh axes the logical axes live on."""
    sampling: SamplingConfig = SamplingConfig()
    """How text is continued."""
    runtime: RuntimeConfig = RuntimeConfig()
    """Processes and devices."""


ConfigT = TypeVar("ConfigT", RunConfig, InferenceConfig)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A recipe with `key.path=value` overrides.

    Raises:
        InputError: the file is not there or not YAML, a key is unknown (the nearest is named) or
            given twice, or a value is not accepted; the sentence says where.
    """
    tree = read_untyped(path)
    for override in overrides:
        apply_override(tree, override)
    return parse_config(tree)


def parse_config(
    tree: Mapping[str, Any],
    kind: type[ConfigT] = RunConfig,  # type: ignore[assignment]
) -> ConfigT:
    """A recipe's nested dicts as typed configs.

    Raises:
        InputError: as `load_config`.
    """
    tree = dict(tree)
    hints = typing.get_type_hints(kind, include_extras=True)
    sections = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    for name in ("init_from", "run_dir"):  # which say what else there is
        if name in tree and name in sections:
            tree[name] = parse(sections[name], tree[name], name)
    if tree.get("init_from") is not None:
        tree = fill_in(tree, tree["init_from"])
    if not isinstance(tree.get("model"), dict):
        raise InputError(f"the recipe has no section 'model' (at least a family: {' or '.join(FAMILIES)})")
    try:
        check_keys(tree, sections, "")
        parsed = {name: parse(sections[name], value, name) for name, value in tree.items()}
    except UnknownKeyError as error:
        raise _with_its_section(error, sections, tree) from error
    if isinstance(parsed.get("data"), DatasetConfig):
        parsed["model"] = parsed["model"].labelled(parsed["data"].labels)
        parsed["data"] = parsed["data"].seen_by(parsed["model"].sight)
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in parsed:
            parsed[field.name] = parse(sections[field.name], {}, field.name)
    return kind(**parsed)


def _with_its_section(error: UnknownKeyError, sections: Mapping[str, Any], tree: Tree) -> UnknownKeyError:
    """The error, with the places where a key of this name does exist."""
    known = [
        path for name, kind in sections.items() for path in (name, *paths_of(kind, tree.get(name), name))
    ]
    key = error.path.rpartition(".")[2]
    found = [path for path in known if path.rpartition(".")[2] == key]
    return UnknownKeyError(error.path, f"did you mean {one_of(found[:3])}?") if found else error


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
    node[name] = yaml_value(text, f"the value of {key}")


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
