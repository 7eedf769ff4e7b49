"""Which of the families' architectures a config.json is, and which can hold a model of ours."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models import FAMILIES
from mjx.models.family import ModelConfig, load_family
from mjx.models.interop.architecture import Architecture
from mjx.models.interop.config_map import Fields, Theirs, shown
from mjx.parse import to_tree
from mjx.trees import flatten


def architectures() -> dict[str, tuple[Architecture, ...]]:
    """Family → its architectures."""
    return {family: load_family(family).architectures for family in FAMILIES}


def find_architecture(theirs: Mapping[str, Any], *, parts: bool = False) -> tuple[str, Architecture]:
    """The family and the architecture of a config.json; `parts`: or of a model that is only inside of others.

    Raises:
        InputError: none is of its `model_type`, or of its class, or it does not say of which of several.
    """
    kind = theirs.get("model_type")
    known = [(family, a) for family, those in architectures().items() for a in those if parts or not a.part]
    of_kind = {a.class_name: (family, a) for family, a in known if a.model_type == kind}
    if not of_kind:
        kinds = sorted({a.model_type for _, a in known})
        raise InputError(f'config.json has "model_type": {kind!r}; mjx knows {", ".join(kinds)}')
    classes = theirs.get("architectures") or (list(of_kind) if len(of_kind) == 1 else None)
    # In any case: the first conversions of Llama wrote LLaMAForCausalLM.
    named = [str(name).lower() for name in classes or ()]
    found = [each for name, each in of_kind.items() if [name.lower()] == named]
    if not found:
        said = 'no "architectures"' if classes is None else f'"architectures": {classes}'
        raise InputError(f"config.json has {said}; of the {kind} models mjx knows {', '.join(of_kind)}")
    return found[0]


def fitting_architecture(config: ModelConfig, model_type: str | None = None) -> Architecture:
    """The architecture that can hold this model: the first that can, or the first of `model_type`.

    Raises:
        InputError: there is none; the sentence names what the nearest of them cannot say.
    """
    of_family = [a for those in architectures().values() for a in those if type(config) is a.config.kind]
    candidates = [a for a in of_family if model_type in (None, a.model_type)]
    if model_type is None:
        of_family = candidates = [a for a in of_family if not a.part]
    if not candidates:
        raise InputError(
            f"there is no Hugging Face architecture {model_type!r} for this model; there are "
            f"{', '.join(dict.fromkeys(a.model_type for a in of_family)) or 'none'}"
        )
    missing = [(architecture, _lost(config, architecture)) for architecture in candidates]
    for architecture, lost in missing:
        if not lost:
            return architecture
    # Where not even the sizes can be said, nobody knows what else could not.
    nearest, lost = min(missing, key=lambda each: (each[1][0].startswith(_SIZES), len(each[1])))
    several = sum(a.model_type == nearest.model_type for a in of_family) > 1
    name = f"{nearest.model_type}'s {nearest.class_name}" if several else nearest.model_type
    who = (
        f"no Hugging Face architecture that mjx knows can hold this model; the nearest, {name},"
        if model_type is None
        else f"the Hugging Face architecture {name} cannot hold this model: it"
    )
    raise InputError(f"{who} has no {', '.join(lost)}")


_SIZES = "way to say its sizes"


def _lost(config: ModelConfig, architecture: Architecture) -> list[str]:
    """What does not survive the way there and back, as `field = value`."""
    try:
        returned = architecture.config.to_ours(architecture.config.to_theirs(config), "config.json")
    except InputError as error:
        reason = str(error).removeprefix("config.json describes a model that mjx cannot build: ")
        return [f"{_SIZES} ({reason})"]
    with contextlib.suppress(ValueError):  # it has tensors that the architecture cannot name, and is lost
        returned = architecture.told(returned, architecture.name_map(config).theirs)
    ours = flatten(to_tree(architecture.canonical(config)))
    theirs = flatten(to_tree(architecture.canonical(returned)))
    return [
        f"model.{name} = {ours.get(name)}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


@dataclasses.dataclass(frozen=True)
class Part:
    """A config of another model inside of theirs."""

    name: str
    field: str
    kind: str
    """Their `model_type` where it says none."""
    fixed: bool = False
    """Whether the part is always of this kind."""
    overruled_by: str | None = None
    """A key whose object, where there is one, stands in the place of this one's."""
    ties: bool | None = None
    """Whether it is the whole's `tie_word_embeddings` that says whether the language model has one table, and
    what it is where it is missing; None: it does not."""

    @property
    def _objects(self) -> tuple[str, ...]:
        return (self.name,) if self.overruled_by is None else (self.name, self.overruled_by)

    def names(self) -> Sequence[str]:
        return self._objects if self.ties is None else (*self._objects, "tie_word_embeddings")

    def ours(self, theirs: Theirs) -> Fields:
        found = next((name for name in reversed(self._objects) if theirs.get(name) is not None), self.name)
        given = theirs.get(found) or {}
        if not isinstance(given, Mapping):
            raise InputError(f'{theirs.where} has "{found}": {shown(given)}, which should be an object')
        inner = {"model_type": self.kind, **given}
        if self.ties is not None:
            inner["tie_word_embeddings"] = theirs.get("tie_word_embeddings", self.ties)
        if self.fixed and inner["model_type"] != self.kind:
            raise InputError(
                f'{theirs.where}, "{found}" has "model_type": {shown(inner["model_type"])}; only '
                f"{shown(self.kind)} is known there"
            )
        inner["architectures"] = [_class_of(inner["model_type"])]
        family, architecture = find_architecture(inner, parts=True)
        config = architecture.config.to_ours(inner, f'{theirs.where}, "{found}"')
        return {self.field: {**to_tree(config), "family": family}}

    def theirs(self, config: Any) -> dict[str, Any]:
        part: ModelConfig = getattr(config, self.field)
        architecture = self.architecture(part)
        written = architecture.config.to_theirs(part)
        found = {self.name: {**written, "model_type": architecture.model_type}}
        if self.ties is not None:
            found["tie_word_embeddings"] = written.get("tie_word_embeddings", False)
        return found

    def architecture(self, part: ModelConfig) -> Architecture:
        """That which holds this part.

        Raises:
            InputError: none can.
        """
        return fitting_architecture(part, self.kind if self.fixed else None)


def _class_of(model_type: str) -> str:
    """The class that a part of this kind has: that which continues text, or the encoder alone."""
    known = [a for those in architectures().values() for a in those if a.model_type == model_type]
    if not known:
        kinds = sorted({a.model_type for those in architectures().values() for a in those})
        raise InputError(f'"model_type": {model_type!r} is not known; mjx knows {", ".join(kinds)}')
    return next((a for a in known if a.class_name.endswith(("CausalLM", "Model"))), known[0]).class_name
