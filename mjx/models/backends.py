"""Which implementation computes each op: the tables of all ops.

A table is data beside the op's implementations; `mjx.kernels.capability.choose` picks from it for every
call, and refuses what the implementation that was asked for cannot do.
"""

import dataclasses
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Literal

from mjx.kernels.capability import Table

Implementation = Literal["auto", "reference", "xla", "cudnn", "pallas_triton", "mosaic", "triton"]


@dataclasses.dataclass(frozen=True)
class Op:
    """One op, its implementations and its vocabulary."""

    table: Table
    features: Mapping[str, str]
    """Feature → what it means."""


PACKAGES = {
    "attention": "flash_attention",
    "ssd": "ssd",
    "selective_scan": "selective_scan",
    "grouped_matmul": "grouped_matmul",
}
"""Op → its folder in mjx.kernels."""


def _op(package: str) -> Callable[[], Op]:
    def load() -> Op:
        module = import_module(f"mjx.kernels.{package}.implementations")
        return Op(module.IMPLEMENTATIONS, module.FEATURES)

    return load


OPS: dict[str, Callable[[], Op]] = {name: _op(package) for name, package in PACKAGES.items()}
"""Op → how its table is had."""
