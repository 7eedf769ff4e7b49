"""Calls of an op as real models make them, and the work in each: what a kernel is measured against."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax

NAMED = Path(__file__).parent / "workloads.yaml"
"""Op → the sizes of its workloads, by model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What has to be done whatever does it: operations, and bytes that are read or written at least once."""

    products: float
    """Floating-point operations of matrix products, a multiplication and an addition counted as two."""
    exps: float
    bytes: float
    vector: float = 0
    """Floating-point operations that are no matrix product, where they are most of the work."""

    def __mul__(self, factor: float) -> "Work":
        return Work(**{name: factor * value for name, value in dataclasses.asdict(self).items()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """What somebody measured on one H100 for the same work."""

    seconds: float
    source: str


class Workload(Protocol):
    """One call; an op's `workloads.py` has a class of them."""

    @property
    def name(self) -> str:
        """The model, and what the sizes are where it has several."""
        ...

    @property
    def dtype(self) -> str: ...

    def arguments(self) -> Mapping[str, jax.ShapeDtypeStruct]:
        """Names and shapes of the arrays."""
        ...

    def function(self, implementation: str, config: Any = None) -> Callable[..., jax.Array]:
        """The forward pass as a function of these arrays; `config` is one of the implementation's own block
        configurations."""
        ...

    def configs(self, implementation: str, compute_capability: float) -> Mapping[str, Any]:
        """The implementation's block configurations for this call, by the name that the report gives them."""
        ...

    def work(self, *, backward: bool) -> Work:
        """Of the forward pass, or of the backward pass alone."""
        ...

    def published(self, *, backward: bool) -> Published | None: ...
