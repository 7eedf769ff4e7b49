"""What a family says of Megatron-Core's model that it can be."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mjx.models.interop.config_map import ConfigMap
from mjx.models.interop.name_map import NameMap


@dataclasses.dataclass(frozen=True, kw_only=True)
class MegatronModel:
    """The names of its tensors, and its settings."""

    name_map: Callable[[Any], NameMap]
    """The tensors of a model of this config; raises `InputError` where Megatron-Core has no such model."""
    settings: ConfigMap
    """Megatron-LM's arguments, by their names in a run's namespace (`num_layers`)."""
    describes: Callable[[Mapping[str, Any]], bool]
    """Whether arguments are of this family, be the model one that we can build or not."""
    canonical: Callable[[Any], Any]
    """A config without training's own choices, one spelling for every model: two that compute the same
    are equal."""
    parts: Callable[[Any], Sequence[Any]] = lambda config: ()
    """The configs of other models inside of one, whose settings stand beside its own in a script."""
