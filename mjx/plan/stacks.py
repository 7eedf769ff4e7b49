"""The stacks of a model, and the sub-layers that they hold."""

from collections import Counter
from typing import Any

from flax import nnx

from mjx.models.common.pattern import SublayerConfig, places
from mjx.models.common.stack import Stack


def stacks_of(model: Any) -> dict[str, Stack]:
    """By the path of their parameters."""
    return {
        ".".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Stack)
    }


def sublayers_of(stack: Stack) -> dict[str, tuple[SublayerConfig, int]]:
    """Each that is traced, in order: path of its parameters within the stack → (config, repeats)."""
    pattern = [config for segment in stack.layout for _ in range(segment.repeats) for config in segment.unit]
    paths = [path for path, _ in places(tuple(pattern))]
    repeats = Counter(paths)
    return {path: (config, repeats[path]) for path, config in zip(paths, pattern, strict=True)}


def unit_of(path: str) -> str:
    """What is repeated with the sub-layer of this path."""
    return path.rpartition(".")[0]
