"""What is planned: a recipe on a number of GPUs."""

import dataclasses
from typing import Literal

from mjx.config import RunConfig, load_config
from mjx.errors import InputError
from mjx.gpus.data_sheet import DataSheet, data_sheet

Compiler = Literal["gpu", "cpu"]
Products = Literal["both", "triton", "cublas"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """One plan."""

    recipe: str
    """The YAML file."""
    overrides: tuple[str, ...] = ()
    gpu: str = "h100"
    """One of `mjx.gpus.target.gpu_names()`."""
    nodes: int = 1
    gpus_per_node: int | None = None
    """None: as many as the data sheet says."""
    compiler: Compiler = "gpu"
    """cpu: XLA's CPU backend, where the wheel with the other is missing: temporaries are an upper bound."""
    products: Products = "both"
    """By what matrices are multiplied. On GPUs, measuring chooses for each product; both are compiled, and
    the step that takes more memory is planned. One of them takes half the time."""
    utilization: float = 0.5
    """The share of the tensor cores' peak that the step's products are taken to reach."""

    def __post_init__(self):
        for name in ("nodes", "gpus_per_node"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value} must be positive")
        if not 0.001 <= self.utilization <= 1:
            raise InputError(f"--utilization {self.utilization} must be from 0.001 to 1")
        if self.compiler == "cpu" and self.products != "both":
            raise InputError(
                f"--products {self.products} is a choice of XLA's CUDA compiler; --compiler cpu has none"
            )
        data_sheet(self.gpu)

    @property
    def sheet(self) -> DataSheet:
        """Of the GPU."""
        return data_sheet(self.gpu)

    @property
    def per_node(self) -> int:
        """GPUs of a node."""
        return self.gpus_per_node or self.sheet.gpus_per_node

    @property
    def devices(self) -> int:
        """GPUs of the run."""
        return self.nodes * self.per_node

    def load(self) -> RunConfig:
        """The recipe, as it is on the GPUs.

        Raises:
            InputError: as `mjx.config.load_config`.
        """
        return on_gpus(load_config(self.recipe, self.overrides))


def on_gpus(config: RunConfig) -> RunConfig:
    """The config with what is decided by the devices as it is on GPUs."""
    if config.model.dtype != "auto":
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="bfloat16"))
