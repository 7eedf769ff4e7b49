"""Groups of parameters: who is frozen, and whose rate and decay differ."""

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

from mjx.errors import InputError
from mjx.models.common.parameter import differentiated
from mjx.trees import Tree, flatten, unflatten
from mjx.words import nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """What is special of some parameters."""

    rate: float = 1.0
    """Factor on the schedule's learning rate."""
    decay: float | None = None
    """Factor on optimizer.weight_decay; null: 1 for matrices and tables, 0 for norms and biases."""
    frozen: bool = False
    """They keep their values: no gradient, no moments."""

    def __post_init__(self):
        for name in ("rate", "decay"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InputError(f"{name} = {value} must be 0 or more")
        if self.frozen and (self.rate != 1 or self.decay is not None):
            raise InputError("frozen = true leaves nothing for rate and decay to act on: leave them out")


def group_of_each(groups: Mapping[str, GroupConfig], paths: Iterable[str]) -> dict[str, GroupConfig]:
    """The group of each parameter: that of the first pattern which matches its path (`*` is any text).

    Raises:
        InputError: a pattern matches nothing, or nothing that an earlier one has left.
    """
    paths, found = list(paths), {}
    for pattern, group in groups.items():
        matched = fnmatch.filter(paths, pattern)
        if not matched:
            raise InputError(
                f"optimizer.groups has the pattern {pattern!r}, which no parameter's path matches "
                f"({nearest(pattern, dict.fromkeys(paths[:50]))})"
            )
        left = [path for path in matched if path not in found]
        if not left:
            raise InputError(
                f"optimizer.groups has the pattern {pattern!r}, but the patterns before it take all that it "
                "matches: the first that matches counts"
            )
        found |= dict.fromkeys(left, group)
    return {path: found.get(path, GroupConfig()) for path in paths}


def trained_of(model: Any, groups: Mapping[str, GroupConfig]) -> Tree:
    """Whether the optimizer changes a parameter, in the shape of `parameters_of`.

    Raises:
        InputError: as `group_of_each`, or nothing would be trained.
    """
    by_gradient = flatten(differentiated(model))
    each = group_of_each(groups, [path for path, is_one in by_gradient.items() if is_one])
    labels = {path: is_one and not each[path].frozen for path, is_one in by_gradient.items()}
    if not any(labels.values()):
        raise InputError("optimizer.groups freezes all parameters: nothing is left to train")
    return unflatten(labels)
