"""Which of the families' architectures a config.json is, and which can hold a model of ours."""

from collections.abc import Mapping
from typing import Any

from mjx.errors import InputError
from mjx.models import FAMILIES
from mjx.models.family import ModelConfig, load_family
from mjx.models.interop.architecture import Architecture
from mjx.parse import to_tree
from mjx.trees import flatten


def architectures() -> dict[str, tuple[Architecture, ...]]:
    """Family → its architectures."""
    return {family: load_family(family).architectures for family in FAMILIES}


def find_architecture(theirs: Mapping[str, Any]) -> tuple[str, Architecture]:
    """The family and the architecture of a config.json.

    Raises:
        InputError: none is of its `model_type`, or its class is not that of a language model.
    """
    kind = theirs.get("model_type")
    known = {a.model_type: (family, a) for family, those in architectures().items() for a in those}
    if not isinstance(kind, str) or kind not in known:
        raise InputError(f'config.json has "model_type": {kind!r}; mjx knows {", ".join(sorted(known))}')
    family, architecture = known[kind]
    classes = theirs.get("architectures") or [architecture.class_name]
    # In any case: the first conversions of Llama wrote LLaMAForCausalLM.
    if [str(name).lower() for name in classes] != [architecture.class_name.lower()]:
        raise InputError(
            f'config.json has "architectures": {classes}; of the {kind} models mjx knows '
            f"{architecture.class_name}"
        )
    return family, architecture


def fitting_architecture(config: ModelConfig, model_type: str | None = None) -> Architecture:
    """The architecture that can hold this model: that of `model_type`, or the first that can.

    Raises:
        InputError: there is none; the sentence names what the nearest of them cannot say.
    """
    of_family = [a for those in architectures().values() for a in those if type(config) is a.config.kind]
    candidates = [a for a in of_family if model_type in (None, a.model_type)]
    if not candidates:
        raise InputError(
            f"there is no Hugging Face architecture {model_type!r} for this model; there are "
            f"{', '.join(a.model_type for a in of_family) or 'none'}"
        )
    missing = {a.model_type: _lost(config, a) for a in candidates}
    for architecture in candidates:
        if not missing[architecture.model_type]:
            return architecture
    # Where not even the sizes can be said, nobody knows what else could not.
    nearest = min(missing, key=lambda name: (missing[name][0].startswith(_SIZES), len(missing[name])))
    who = (
        f"no Hugging Face architecture that mjx knows can hold this model; the nearest, {nearest},"
        if model_type is None
        else f"the Hugging Face architecture {model_type} cannot hold this model: it"
    )
    raise InputError(f"{who} has no {', '.join(missing[nearest])}")


_SIZES = "way to say its sizes"


def _lost(config: ModelConfig, architecture: Architecture) -> list[str]:
    """What does not survive the way there and back, as `field = value`."""
    try:
        returned = architecture.config.to_ours(architecture.config.to_theirs(config), "config.json")
    except InputError as error:
        reason = str(error).removeprefix("config.json describes a model that mjx cannot build: ")
        return [f"{_SIZES} ({reason})"]
    ours = flatten(to_tree(architecture.canonical(config)))
    theirs = flatten(to_tree(architecture.canonical(returned)))
    return [
        f"model.{name} = {ours.get(name)}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
