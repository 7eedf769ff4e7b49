"""What training, inference and planning know of a model family: this, and nothing more."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.batch import BatchArrays, size_of
from mjx.errors import InputError
from mjx.kernels.capability import current_device
from mjx.models import FAMILIES
from mjx.models.common.pictures import View
from mjx.models.common.pictures.sight import Sight
from mjx.models.interop.architecture import Architecture
from mjx.models.interop.interface import Interface
from mjx.models.interop.megatron.model import MegatronModel
from mjx.models.report import Report
from mjx.parse import Tag
from mjx.sharding import mesh_shape
from mjx.trees import Tree

Batch = dict[str, Array]
Metrics = dict[str, Float[Array, ""]]
Counts = Mapping[str, Float[Array, ""]]
Remat = Literal["none", "selective", "full"]


def on_one_cpu() -> bool:
    """Whether a CPU computes and nothing is split over a mesh: some of a model is then written otherwise."""
    return current_device()[0] == "cpu" and all(size == 1 for size in mesh_shape().values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The base of every family's config."""

    tag: ClassVar[Tag] = Tag("family", FAMILIES, lambda name: load_family(name).named, prefix="model.")
    family: ClassVar[str]
    """The name of its family in `mjx.models.FAMILIES`."""
    training_choices: ClassVar[tuple[str, ...]] = ("dtype",)
    """Fields (dotted paths) that a run may choose freely for given weights: the same model has the same
    parameters with any of their values."""
    heads: ClassVar[tuple[str, ...]] = ()
    """What a run may begin anew that starts from a model with other heads: how the paths of their parameters
    begin."""
    modules: ClassVar[tuple[str, ...]] = ()
    """Modules of the model that work within `mjx.sharding.inside`, and may have a rule table of their own."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations and GEMMs; parameters stay float32. auto: bfloat16 on GPUs, whose tensor cores it
    feeds, float32 on CPUs."""
    remat: Remat = "none"
    """What the backward pass computes again: nothing, attention scores and element-wise work, or all."""

    @property
    def compute_dtype(self) -> Literal["float32", "bfloat16"]:
        """`dtype`, decided for the devices of the mesh in force, or those here."""
        if self.dtype != "auto":
            return self.dtype
        platform, _ = current_device()
        return "float32" if platform == "cpu" else "bfloat16"

    @property
    def vocabulary(self) -> int | None:
        """Token ids are below it; None: the model takes none."""
        return None

    @property
    def sight(self) -> Sight | None:
        """How pictures stand in its texts; None: none do."""
        return None

    @property
    def rows_together(self) -> str | None:
        """The field by which each row of a batch is compared with all others, so that microbatches would
        change the loss; None: rows are not."""
        return None

    @property
    def rows_apart(self) -> bool:
        """Whether a batch's loss is the sum of its rows', so that replicas need nothing of each other."""
        return True

    def build(self, rngs: nnx.Rngs) -> Any:
        """The module, with freshly drawn parameters."""
        raise NotImplementedError(type(self))

    @classmethod
    def upcycled_tree(cls, dense: Tree, section: Mapping[str, Any]) -> Tree | None:
        """The model that a recipe's section asks for where it has experts and `dense` has MLPs, as a tree;
        None: it does not ask for that."""
        return None

    def upcycling(self, dense: Any) -> Callable[[Tree, Key[Array, ""]], Tree] | None:
        """How this model's parameters are made of those of `dense`, experts of its MLPs, such that it
        computes what `dense` does; None: it is not `dense` with experts in the place of MLPs.

        Raises:
            InputError: it could not compute the same.
        """
        return None

    @classmethod
    def reheaded_tree(cls, given: Tree, section: Mapping[str, Any]) -> Tree | None:
        """The model that a recipe's section asks for where it has other heads than `given`, as a tree; None:
        it does not ask for that."""
        return None

    def other_heads(self, given: Any) -> frozenset[str]:
        """Those of `heads` that mean something else in `given`, whatever their shapes."""
        return frozenset()

    def labelled(self, labels: tuple[str, ...]) -> Self:
        """This model, whose classes have the names that the data gives them.

        Raises:
            InputError: they are others than the model's, or not as many.
        """
        return self

    def num_parameters(self) -> int:
        """Of the model, without what only pads an array."""
        return sum(leaf.size for leaf in jax.tree.leaves(abstract_model(self)))

    def num_active_parameters(self) -> int:
        """Those that a token uses: without the experts that it does not take."""
        return self.num_parameters()

    def flops(self, arrays: BatchArrays) -> float:
        """Of forward and backward over a batch."""
        raise NotImplementedError(type(self))

    def lengths(self, arrays: BatchArrays) -> dict[str, Any]:
        """The `Lengths` of a row in each stack, by its path; empty: as long as the longest sequence."""
        return {}

    def size(self, arrays: BatchArrays) -> tuple[int, int]:
        """The rows of a batch, and the tokens of the longest row that a stack sees."""
        rows, sequence = size_of(arrays)
        return rows, max([sequence, *(lengths.sequence for lengths in self.lengths(arrays).values())])

    def decided(self, arrays: BatchArrays) -> tuple[str, ...]:
        """What layers decide by the mesh in force for a microbatch of these arrays, and why."""
        return ()

    def exchanges(self, step: Any) -> tuple[Any, ...]:
        """What is sent (`Exchange`) for a microbatch (a `StepOnMesh`) besides what layers send."""
        return ()

    def check_devices(self) -> None:
        """Try what a step would do on the mesh in force and is known to go wrong on some.

        Raises:
            InputError: it does here.
        """

    def check_batch(self, arrays: BatchArrays) -> None:
        """Raise `InputError` if these are not the arrays that `loss` takes, or do not fit the model."""
        raise NotImplementedError(type(self))


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
    interface: Interface | None = None
    """What Hugging Face's models of this kind take and return; None: it is not said yet."""

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


@functools.lru_cache(maxsize=16)
def abstract_model(config: ModelConfig) -> Any:
    """The module with shapes in place of arrays: the definition that `bind` fills."""
    return jax.eval_shape(lambda: config.build(nnx.Rngs(params=jax.random.key(0))))


@runtime_checkable
class Trainable(Protocol):
    """A family's module."""

    def counts(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """What each loss is divided by, summed over this part of a batch: unmasked tokens, samples, …"""
        ...

    def loss(
        self,
        batch: Batch,
        counts: Counts,
        *,
        key: Key[Array, ""] | None = None,
        so_far: Any = None,
        training: bool = True,
    ) -> tuple[Float[Array, ""], Report]:
        """The number to minimise, of this part of a batch, and what is reported of it.

        Args:
            batch: a part of a batch.
            counts: of the whole batch. Losses are divided by them, so that those of the parts only add up.
            key: of dropout and all other chance; None: there is none.
            so_far: the `Report.statistics` of the parts before this one, for a loss that looks at the whole
                batch.
            training: whether this is a training step. Evaluation is not: no layer does what only training
                does, such as to bound the tokens of an expert.
        """
        ...

    def after_step(self, parameters: Tree, statistics: Any) -> Tree:
        """The parameters after what no gradient does to them (expert biases, clipped kernels), by the whole
        batch's statistics; a part that stays is the same object. Asked of the definition."""
        ...

    def summary(self, statistics: Any) -> Metrics:
        """What is worth logging of a whole batch's statistics. Asked of the definition."""
        ...

    def scores(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """How good the model is, of a whole validation set's `Report.rows`. Asked of the definition."""
        ...


@runtime_checkable
class Embeds(Trainable, Protocol):
    """A family's module that reads whole rows, of which embeddings are made: an encoder."""

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        ...

    @property
    def max_positions(self) -> int | None:
        """Tokens that a row may have; None where positions have no end."""
        ...

    @property
    def has_pooler(self) -> bool:
        """Whether `pooled` says something."""
        ...

    @property
    def is_pooled(self) -> bool:
        """Whether an embedding is what `pooled` says, where nobody asks for another."""
        ...

    def encoded(self, batch: Batch) -> Float[Array, "batch residual_sequence embed"]:
        """A state for everything that a row has, such as its `tokens` (`segment_ids` 0: padding)."""
        ...

    def pooled(
        self, states: Float[Array, "batch residual_sequence embed"], batch: Batch
    ) -> Float[Array, "batch latent"]:
        """What the model itself has learnt to make of the states of the rows of `batch`."""
        ...


@runtime_checkable
class EmbedsPictures(Protocol):
    """A family's module that makes a vector of a picture."""

    def picture_vectors(
        self, images: Float[Array, "batch channels height width"]
    ) -> Float[Array, "batch latent"]:
        """One of each picture, in float32."""
        ...


class Begun(NamedTuple):
    """What a model makes of prompts: rows that it continues, and what it reads besides."""

    name: str
    """What the rows are called in the prompt that `begin` takes."""
    rows: Sequence[Sequence[int]]
    beside: Mapping[str, np.ndarray] = {}
    """Everything else in it, [rows, tokens]; zeros behind a row's tokens are padding."""


@runtime_checkable
class Classifies(Protocol):
    """A family's module that can tell of which class a row is, or its number."""

    config: Any

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits; empty where what is told is a number."""
        ...

    def classified(self, batch: Batch) -> Float[Array, "batch classes"]:
        """Logits of each row's classes, or its number, of `tokens`, `segment_ids` (0 is padding) and, where
        the model has them, `token_types`; or of `images`; in float32."""
        ...


@runtime_checkable
class Sees(Protocol):
    """A family's module in whose texts pictures stand, each in the places of an image token."""

    @property
    def image_token(self) -> int:
        """The id that stands in their places."""
        ...

    def places(self, view: View) -> tuple[int, ...]:
        """How many tokens each part of a picture takes: of tiles that are put together as one grid, all in
        one number.

        Raises:
            InputError: the encoder cannot see such a picture.
        """
        ...

    def seeing(
        self, tokens: Int[np.ndarray, "batch sequence"], pictures: Sequence[Sequence[View]]
    ) -> dict[str, np.ndarray]:
        """What a batch has besides `tokens`, in which each row's pictures have their places, in order.

        Raises:
            InputError: a row has not as many image tokens as its pictures take.
        """
        ...


@runtime_checkable
class Generates(Trainable, Protocol):
    """A family's module that can continue text token by token. A prompt is a batch."""

    @property
    def answers(self) -> bool:
        """Whether prompts are read apart from the text, which begins with a token of its own."""
        ...

    def begun(self, prompts: Sequence[Sequence[int]], start: int | None) -> Begun:
        """What stands in front of the text of each of these prompts, which are token ids.

        Raises:
            InputError: the text begins with a token of its own, and `start` is no such token.
        """
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        ...

    @property
    def max_positions(self) -> int | None:
        """Tokens that a row may have; None where positions have no end."""
        ...

    @property
    def caches_grow(self) -> bool:
        """Whether the caches need a slot for every token, as attention's do; False: they have one size."""
        ...

    def unrolled(self) -> Self:
        """The same model with every layer's parameters in arrays of their own.

        Decoding takes this form: out of stacked arrays every token would copy every layer's weights.
        """
        ...

    def begin(
        self, prompt: Batch, lengths: Int[Array, " batch"], slots: int
    ) -> tuple[Float[Array, "batch vocab"], Any]:
        """Logits of the token after each row's prompt, in float32, and caches with room for `slots` tokens.

        Rows are padded on the right to one length; `lengths` are those of the prompts, without padding. The
        rest of a prompt that is longer than its row is for `read_on`; its logits are those behind the row.
        """
        ...

    def read_on(
        self,
        tokens: Int[Array, "batch new"],
        caches: Any,
        offset: Int[Array, " batch"],
        lengths: Int[Array, " batch"],
    ) -> tuple[Float[Array, "batch vocab"], Any]:
        """As `begin`, with the next tokens of each row's prompt, whose first `offset` the caches hold.

        Where the prompt, of `lengths` tokens, has ended, its row is padding: logits behind nothing mean
        nothing, and its cache goes on to be that of the prompt. With `caches_grow` there must be slots for
        padding too: `offset` and the row's tokens together.
        """
        ...

    def next(
        self, tokens: Int[Array, "batch new"], caches: Any, offset: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch new vocab"], Any]:
        """Logits behind each of these tokens, which continue what the caches hold of each row (`offset`
        tokens), and the caches with them."""
        ...

    def rows_of(self, caches: Any, rows: Int[Array, " chosen"]) -> Any:
        """The caches of these rows, in this order; a row may be there several times."""
        ...
