"""What training, inference and planning know of a model family: this, and nothing more."""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import jax
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.errors import InputError
from mjx.kernels.capability import current_device
from mjx.models import FAMILIES
from mjx.models.common.stack import Remat
from mjx.models.interop.architecture import Architecture
from mjx.models.interop.megatron_model import MegatronModel
from mjx.parse import Tag

Batch = dict[str, Array]
Metrics = dict[str, Float[Array, ""]]
"""Sums over the batch's unmasked tokens; what is reported is divided by their number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchArray:
    """One array of a batch."""

    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The base of every family's config."""

    tag: ClassVar[Tag] = Tag("family", FAMILIES, lambda name: load_family(name).named, prefix="model.")
    family: ClassVar[str]
    """The name of its family in `mjx.models.FAMILIES`."""
    dataset: ClassVar[str] = "gpt"
    """The kind of dataset that feeds the family."""
    training_choices: ClassVar[tuple[str, ...]] = ("dtype",)
    """Fields (dotted paths) that a run may choose freely for given weights: the same model has the same
    parameters with any of their values."""

    vocab_size: int
    """Token ids are below it."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations and GEMMs; parameters stay float32. auto: bfloat16 on GPUs, whose tensor cores it
    feeds, float32 on CPUs."""
    remat: Remat = "none"
    """What the backward pass computes again: nothing, attention scores and element-wise work, or all."""
    loss_chunks: int = 1
    """Cut each row's tokens into this many chunks for the head, so that fewer logits exist at once."""

    def __post_init__(self):
        for name in ("vocab_size", "loss_chunks"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} = {getattr(self, name)} must be positive")

    @property
    def compute_dtype(self) -> Literal["float32", "bfloat16"]:
        """`dtype`, decided for the devices of the mesh in force, or those here."""
        if self.dtype != "auto":
            return self.dtype
        platform, _ = current_device()
        return "float32" if platform == "cpu" else "bfloat16"

    def build(self, rngs: nnx.Rngs) -> Any:
        """The module, with freshly drawn parameters."""
        raise NotImplementedError(type(self))

    def num_parameters(self) -> int:
        """Trained numbers."""
        raise NotImplementedError(type(self))

    def flops_per_token(self, sequence: int) -> float:
        """Of forward and backward."""
        raise NotImplementedError(type(self))

    def check_sequence(self, sequence: int) -> None:
        """Raise `InputError` if rows of this length do not fit."""

    def batch(self, rows: int, sequence: int, *, extras: Sequence[str] = ()) -> dict[str, BatchArray]:
        """Names, shapes and logical axes of what `loss` takes; `extras` are those that not every batch has
        (`positions`, `segment_ids`)."""

        def array(dtype: str) -> BatchArray:
            return BatchArray(shape=(rows, sequence), dtype=dtype, axes=("batch", "sequence"))

        names = {"tokens": "int32", "labels": "int32", "loss_mask": "float32"}
        names |= dict.fromkeys(extras, "int32")
        return {name: array(dtype) for name, dtype in names.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What there is of a family: the `FAMILY` of its package."""

    config: type[ModelConfig]
    published: Mapping[str, ModelConfig]
    """The sizes of known models: what a recipe calls `preset`."""
    architectures: tuple[Architecture, ...] = ()
    """Hugging Face's models that it can be."""
    megatron: MegatronModel | None = None
    """None: it is not read from Megatron's checkpoints."""

    @property
    def named(self) -> tuple[type[ModelConfig], Mapping[str, ModelConfig]]:
        """What a recipe's `family` and `preset` choose."""
        return self.config, self.published


def load_family(name: str) -> Family:
    """A family by its name.

    Raises:
        InputError: there is none of this name.
    """
    if name not in FAMILIES:
        raise InputError(f"model.family = '{name}' is not known (choose from {', '.join(FAMILIES)})")
    return importlib.import_module(FAMILIES[name]).FAMILY


def abstract_model(config: ModelConfig) -> Any:
    """The module with shapes in place of arrays: the definition that `bind` fills."""
    return jax.eval_shape(lambda: config.build(nnx.Rngs(params=jax.random.key(0))))


@runtime_checkable
class Model(Protocol):
    """A family's module."""

    def loss(
        self, batch: Batch, dropout_key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, ""], Metrics]:
        """The quantity to minimise, summed over the batch's unmasked tokens, and sums to report."""
        ...


@runtime_checkable
class LanguageModel(Model, Protocol):
    """A family's module that can continue text token by token."""

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        ...

    @property
    def max_positions(self) -> int | None:
        """Tokens that a row may have; None where positions have no end."""
        ...

    def unrolled(self) -> Self:
        """The same model with every layer's parameters in arrays of their own.

        Decoding takes this form: out of stacked arrays every token would copy every layer's weights.
        """
        ...

    def init_caches(self, batch: int, slots: int) -> Any:
        """Empty caches for `slots` tokens a row."""
        ...

    def hidden_states(
        self, tokens: Int[Array, "batch sequence"], *, caches: Any, cache_offset: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch sequence embed"], Any]:
        """What `logits` takes, and the caches with these tokens from each row's `cache_offset` on.

        Either one token, which sees all that its row's cache holds, or a prompt at offset 0.
        """
        ...

    def logits(self, hidden: Float[Array, "batch sequence embed"]) -> Float[Array, "batch sequence vocab"]:
        """Of the next token, in float32."""
        ...
