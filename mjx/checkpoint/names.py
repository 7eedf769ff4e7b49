"""The names of a checkpoint's arrays, and the sentences when they are not those of the model.

A checkpoint knows its arrays by their paths in the state, `params.decoder.embedding.kernel`, and by nothing
else. So it does not matter to it which containers hold them: a NamedTuple, a dataclass, a flax `State` or
a dict give the same names, and optax's empty states give none.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mjx.errors import InputError
from mjx.trees import Name, name_of

SHOWN = 3
"""How many names of a kind an error message shows before it only counts."""


class ArrayType(NamedTuple):
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def array_type(leaf: Any) -> ArrayType:
    return ArrayType(tuple(leaf.shape), str(leaf.dtype))


def named_leaves(tree: Any) -> dict[Name, Any]:
    """The arrays of `tree` by name. Raises ValueError where two would have the same name."""
    named: dict[Name, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = name_of(path)
        if not name:
            raise ValueError("The state is a single array; give a dict or another container of arrays.")
        if name in named:
            raise ValueError(f"Two arrays of the state have the name {'.'.join(name)!r}.")
        named[name] = leaf
    for name in named:
        for length in range(1, len(name)):
            if name[:length] in named:
                raise ValueError(
                    f"{'.'.join(name[:length])!r} names both an array of the state and a group of them."
                )
    return named


def check_same_arrays(
    saved: Mapping[Name, ArrayType],
    wanted: Mapping[Name, ArrayType],
    checkpoint: str,
    *,
    cast: bool = False,
) -> None:
    """Raises InputError when the arrays of a checkpoint are not those that are wanted.

    With `cast`, a floating-point array may be wanted in another floating-point type.
    """
    differing = [name for name in wanted if name in saved and not _fits(saved[name], wanted[name], cast)]
    missing = [name for name in wanted if name not in saved]
    unexpected = [name for name in saved if name not in wanted]
    if not (differing or missing or unexpected):
        return

    # Another model has another optimizer state as well: what is wrong is told once, where it begins.
    of_model = [
        [name for name in names if not _of_optimizer(name)] for names in (missing, unexpected, differing)
    ]
    if any(of_model):
        missing, unexpected, differing = of_model
        opening = f"{checkpoint} holds another model than the config describes"
        remedy = "Use the config that the checkpoint was made with, or start another run."
    else:
        opening = (
            f"{checkpoint} holds the state of another optimizer than the config describes; the model fits"
        )
        remedy = (
            "Use the optimizer of the config that the checkpoint was made with, or start from its weights."
        )
    findings = []
    if missing:
        findings.append(f"{_count(missing)} missing from it ({_listed(map(_dotted, missing), len(missing))})")
    if unexpected:
        findings.append(
            f"{_count(unexpected)} unexpected in it ({_listed(map(_dotted, unexpected), len(unexpected))})"
        )
    if differing:
        shown = (f"{_dotted(name)} is {saved[name]} there, {wanted[name]} here" for name in differing)
        findings.append(f"{_count(differing)} of another shape or type ({_listed(shown, len(differing))})")
    raise InputError(f"{opening}: {', '.join(findings)}. Nothing was read. {remedy}")


def _fits(saved: ArrayType, wanted: ArrayType, cast: bool) -> bool:
    if saved == wanted or not cast:
        return saved == wanted
    floating = all(jax.numpy.issubdtype(np.dtype(t.dtype), jax.numpy.floating) for t in (saved, wanted))
    return floating and saved.shape == wanted.shape


def _of_optimizer(name: Name) -> bool:
    return name[0].startswith("opt")


def _dotted(name: Name) -> str:
    return ".".join(name)


def _count(names: list[Name]) -> str:
    noun = "parameter" if all(name[0].startswith("param") for name in names) else "array"
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''}"


def _listed(items: Any, count: int) -> str:
    shown = [item for item, _ in zip(items, range(SHOWN), strict=False)]
    return ", ".join(shown) + (", …" if count > SHOWN else "")
