"""What a family says of Megatron-Core's model that it can be."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mjx.models.interop.name_map import NameMap


@dataclasses.dataclass(frozen=True, kw_only=True)
class MegatronModel:
    """The names of its tensors, and what its arguments must be."""

    name_map: Callable[[Any], NameMap]
    """The tensors of a model of this config; raises `InputError` where Megatron-Core has no such model."""
    check_arguments: Callable[[Any, Mapping[str, Any]], None]
    """Raises `InputError` where Megatron-LM's arguments, of which any may be missing, describe another model
    than this config."""
