"""How long the work of an op would take on a GPU at its data sheet's rates."""

import dataclasses
from collections.abc import Iterator
from importlib import import_module

from mjx.gpus.data_sheet import DataSheet
from mjx.kernels.workload import NAMED, Work, Workload
from mjx.models.backends import PACKAGES
from mjx.parse import parse
from mjx.trees import read_yaml


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of each part at its peak rate."""

    products: float
    exps: float
    vector: float
    memory: float

    @property
    def needed(self) -> float:
        """Arithmetic, or memory traffic, whichever takes longer.

        Products and exponentials are taken one after the other: the best kernels overlap them in part
        (Shah et al. 2024, section 3.1), and reach about this.
        """
        return max(self.products + self.exps + self.vector, self.memory)

    @property
    def bound(self) -> str:
        """What it waits for."""
        parts = {"products": self.products, "exps": self.exps, "vector": self.vector}
        return "memory" if self.memory >= sum(parts.values()) else max(parts, key=lambda part: parts[part])


def roofline(work: Work, sheet: DataSheet, dtype: str) -> Roofline:
    """The least time of some work."""
    flops = sheet.vector_flops if dtype == "float32" else sheet.tensor_flops
    return Roofline(
        products=work.products / flops,
        exps=work.exps / sheet.exps,
        vector=work.vector / sheet.vector_flops,
        memory=work.bytes / sheet.memory_bandwidth,
    )


def workloads() -> Iterator[tuple[str, Workload]]:
    """Op and workload, all that are named in mjx/kernels/workloads.yaml."""
    for op, entries in read_yaml(NAMED).items():
        kind = import_module(f"mjx.kernels.{PACKAGES[op]}.workloads").WORKLOAD
        for number, entry in enumerate(entries):
            yield op, parse(kind, entry, f"{op}.{number}")
