"""Megatron's settings, of whichever family, as the config of a model."""

import math
from collections.abc import Mapping
from typing import Any

from mjx.errors import InputError
from mjx.models import FAMILIES
from mjx.models.family import ModelConfig, load_family
from mjx.models.interop.config_map import Entry, Theirs, shown
from mjx.models.interop.megatron.model import MegatronModel
from mjx.models.interop.megatron.spelling import spelled
from mjx.parse import to_tree
from mjx.trees import flatten


def read_settings(settings: Mapping[str, Any], where: str) -> tuple[str, ModelConfig]:
    """The family and the config that Megatron's settings describe.

    Args:
        settings: Megatron-LM's arguments by their names (with or without dashes), or the fields of
            Megatron-Core's `TransformerConfig`, beside them or under "model" the arguments of its `GPTModel`.
            Those about the run alone are passed over.
        where: what sentences call them: "args.json".

    Raises:
        InputError: they describe a model that mjx does not have; the sentence has all that is missing.
    """
    arguments = spelled(settings, where)
    for family in reversed(FAMILIES):  # a GPT's arguments are what others have too, so that it is asked last
        theirs = load_family(family).megatron
        if theirs is not None and theirs.describes(arguments):
            return family, theirs.settings.to_ours(arguments, where)
    raise InputError(f"{where} describes a model of a kind that mjx does not read yet")


def settings_of(config: ModelConfig) -> dict[str, Any]:
    """Megatron-LM's arguments that describe a model.

    Raises:
        InputError: they cannot; the sentence has all that they do not say.
    """
    table = megatron_model(config)
    arguments = table.settings.to_theirs(config)
    lost = _differences(table, config, table.settings.to_ours(arguments, "Megatron-LM"))
    if lost:
        said = ", ".join(f"model.{path} = {shown(ours)}" for path, (ours, _) in lost.items())
        raise InputError(f"Megatron-LM has no arguments for {said}")
    return arguments


def check_settings(config: ModelConfig, settings: Mapping[str, Any], where: str) -> None:
    """Raise if Megatron's settings, of which any may be missing, describe another model than `config`.

    The shapes of tensors do not show all of it: neither the norms' epsilon nor the rotation's base.

    Raises:
        InputError: naming every setting that differs.
    """
    table = megatron_model(config)
    given = spelled(settings, where)
    if not given:
        return
    merged = {**table.settings.to_theirs(config), **given}
    said = []
    if config.vocabulary is not None:  # which may be padded in theirs
        rows = max(given.get("padded_vocab_size") or 0, given.get("vocab_size") or 0) or config.vocabulary
        merged["vocab_size"] = config.vocabulary
        if rows < config.vocabulary:
            said.append(f"padded_vocab_size = {rows}, but model.vocab_size = {config.vocabulary}")
    found = table.settings.to_ours(merged, where)
    differences = _differences(table, config, found)
    for entry in table.settings.entries:
        paths = [path for path in differences if _decides(entry, Theirs(merged, where), path)]
        ours, theirs = (entry.theirs(table.canonical(each)) for each in (config, found))
        names = [name for name in given if name in entry.names() and ours.get(name) != theirs.get(name)]
        if paths and names:
            asked = ", ".join(f"model.{path} asks for {differences[path][0]}" for path in paths)
            said.append(f"{', '.join(f'{name} = {given[name]}' for name in names)}, but {asked}")
            for path in paths:
                del differences[path]
    said += [f"Megatron has no model.{path} = {ours}" for path, (ours, _) in differences.items()]
    if said:
        raise InputError(f"{where} says that the model was trained with {'; '.join(said)}")


def _differences(table: MegatronModel, ours: ModelConfig, theirs: ModelConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted path → the two values, where the models differ."""
    a, b = (flatten(to_tree(table.canonical(config))) for config in (ours, theirs))
    for one, other in ((a, b), (b, a)):
        for path in [path for path, value in one.items() if value is None and path not in other]:
            if any(name.startswith(f"{path}.") for name in other):
                other[path] = "one"
    paths = sorted(a.keys() | b.keys())
    differing = {path: (a.get(path), b.get(path)) for path in paths if not _same(a.get(path), b.get(path))}
    # The parts of what only one of them has are not said one by one.
    missing = tuple(f"{path}." for path, pair in differing.items() if None in pair)
    return {path: pair for path, pair in differing.items() if not path.startswith(missing)}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9)
    return a == b


def _decides(entry: Entry, theirs: Theirs, path: str) -> bool:
    fields = entry.ours(theirs)
    return any(f"{path}.".startswith(f"{field}.") or field.startswith(f"{path}.") for field in fields)


def megatron_model(config: ModelConfig) -> MegatronModel:
    """What the family of a config says of Megatron.

    Raises:
        InputError: nothing.
    """
    theirs = load_family(config.family).megatron
    if theirs is None:
        raise InputError(f"model.family = {config.family} cannot be read from a Megatron checkpoint yet")
    return theirs
