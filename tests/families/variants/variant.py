"""What a family tells the contract of itself."""

import dataclasses
import fnmatch
from typing import Any, NamedTuple

import numpy as np

from mjx.batch import BatchArrays
from mjx.models.family import ModelConfig
from mjx.parse import to_tree
from mjx.trees import Tree

Arrays = dict[str, np.ndarray]


class NotApplicableError(Exception):
    """A variant does not have what a check is about; the text says what."""


class Prompt(NamedTuple):
    """Rows of tokens, the beginnings of which a model is given at once and the rest of which one by one."""

    batch: Arrays
    """What `begin` is given; behind each row's length stands something, which must not be seen."""
    lengths: np.ndarray
    tokens: np.ndarray
    """The whole rows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A tiny model of a family, and the batches that it takes."""

    name: str
    config: ModelConfig
    num_parameters: int
    """Counted by hand."""
    rows: int = 8
    context: bool = True
    """Whether a mesh may split its sequences."""
    mesh: str = "data 2 × fsdp 2 × tensor 2"
    """That of checks that look at one mesh (training.MESHES)."""
    in_processes: bool = False
    """Whether this one, rather than the first, is trained by two processes."""
    chance: bool = False
    """Whether it has dropout."""
    unseen: tuple[str, ...] = ()
    """Parameters (patterns of paths) that the loss hardly sees: their gradient is the noise of rounding,
    which Adam scales up to the size of any other update. No two orders of summation agree on them."""
    buffers: tuple[str, ...] = ()
    """Parameters (patterns of paths) that have no gradient."""
    huggingface: str | None = None
    """The `model_type` that can hold it; None: it has none."""
    megatron: bool = False
    """Whether Megatron-Core has this model."""

    def arrays(self) -> BatchArrays:
        """What its batches are made of."""
        raise NotImplementedError

    def batch(self, seed: int) -> Arrays:
        """A batch; some of what is in it counts for nothing."""
        raise NotImplementedError

    def padded(self, batch: Arrays) -> Arrays:
        """The batch with other contents wherever they count for nothing."""
        raise NotImplementedError

    def packed(self) -> tuple[Arrays, Arrays]:
        """Documents, several in a row, and the same ones in rows of their own."""
        raise NotApplicableError("its rows are not packed")

    def prompt(self) -> Prompt:
        """What it is asked to continue, if it generates."""
        raise NotApplicableError("it generates nothing")

    def logits(self, model: Any, prompt: Prompt) -> Any:
        """Behind every token of the whole rows, in one pass."""
        raise NotApplicableError("it generates nothing")

    def flops_not_counted(self) -> float:
        """Of matrix products that a trace of the loss has for one batch, and the config's FLOPs leave out."""
        return 0.0

    def recipe(self) -> Tree:
        """A recipe that `mjx explain` and `mjx plan` take."""
        return {"model": to_tree(self.config), "training": {"steps": 10, "batch_size": self.rows}}

    def is_one_of(self, path: str, patterns: tuple[str, ...]) -> bool:
        """Whether a parameter's path, or that of one of its moments, fits one of the patterns."""
        return any(fnmatch.fnmatch(path, f"*{pattern}") for pattern in patterns)
