"""What every sub-layer of a stack may read besides the residual stream."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.family import on_one_cpu


class Shared(Protocol):
    """What a stack makes once for all of its layers that ask for it: rotary tables, a learned bias.

    A frozen dataclass: equal ones are one.
    """

    @property
    def name(self) -> str:
        """Its name in parameter paths, if it has parameters: `decoder.shared.NAME`."""
        ...

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> nnx.Module | None:
        """Its parameters, which are the stack's; None where it has none. As a mixer's `build`."""
        ...

    def make(self, module: Any, context: "Context") -> Any:
        """What the layers read, from `build`'s module and the places of the tokens; the module itself, where
        they share its weights."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """A second stream that sub-layers may look at: an encoder's states, retrieved chunks, images."""

    states: Float[Array, "batch memory embed"]
    segment_ids: Int[Array, "batch memory"] | None = None
    """0 is padding. Where the row is packed, a token sees what has its own segment id; where it is not,
    everything from 1 on."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decoding:
    """What the tokens given are to the caches."""

    offset: Int[Array, " batch"]
    """How many tokens of each row the caches already hold."""
    lengths: Int[Array, " batch"]
    """How many of the tokens given are real; those behind them are padding, which a recurrence must skip."""
    whole: Int[Array, " batch"] | None = None
    """How many tokens each row has with those that are still to come: a prompt may be given in parts. None:
    none are to come."""
    prompt: bool = dataclasses.field(default=False, metadata={"static": True})
    """Whether nothing is in front of them: a prompt from offset 0 on, which sees only itself."""

    @property
    def last(self) -> Int[Array, " batch"]:
        """The last position of each row, with what is still to come."""
        end = self.offset + self.lengths if self.whole is None else self.whole
        return jnp.maximum(end, self.offset + 1) - 1


def following(count: int, decoding: Decoding | None) -> Int[Array, "#batch sequence"]:
    """The positions of tokens that follow one another, behind those that the caches hold."""
    if decoding is not None:
        return decoding.offset[:, None] + jnp.arange(count)
    if on_one_cpu():
        # Known when it is compiled: XLA's CPU backend would else compute the rotary tables anew in every
        # layer that it runs without a loop, and for every head.
        return np.arange(count, dtype=np.int32)[None]  # type: ignore[return-value]
    return jnp.arange(count)[None]


def counted(batch: Mapping[str, Array]) -> Float[Array, "batch sequence"]:
    """1 for tokens that are not masked, nor padding."""
    real = batch["loss_mask"] > 0
    if "segment_ids" in batch:
        real &= batch["segment_ids"] > 0
    return real.astype(jnp.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """The tokens' places, what the layers share, and the dropout key of the sub-layer that reads it."""

    positions: Int[Array, "#batch sequence *axes"] | None = None
    """Of the tokens in their documents, along several axes where rotation has sections; None: no one asks."""
    segment_ids: Int[Array, "batch sequence"] | None = None
    """Documents of a packed row, from 1; 0 is padding. None: each row is one document."""
    window_ids: Int[Array, "batch sequence"] | None = None
    """Parts of the documents, from 1, that the layers see which are `windowed`; 0 is padding."""
    tables: tuple[Any, ...] = ()
    """What each of `table_keys` has made."""
    entered: Float[Array, "batch residual_sequence embed"] | None = None
    """The residual stream as it entered the stack: the embeddings of the tokens."""
    memory: Memory | None = None
    decoding: Decoding | None = None
    """None: no caches."""
    counted: Float[Array, "batch sequence"] | None = None
    """1 for tokens that count in losses and statistics, 0 for others; None: nothing is counted."""
    so_far: Mapping[str, Any] | None = None
    """This sub-layer's statistics of the batch's earlier microbatches; None: it has none, or this is no
    training step."""
    dropout_key: Key[Array, ""] | None = None
    """None: no dropout."""
    training: bool = dataclasses.field(default=False, metadata={"static": True})
    """Whether this is a training step: what only training does (bounds on experts' tokens, …) is done."""
    table_keys: tuple[Shared, ...] = dataclasses.field(default=(), metadata={"static": True})

    def with_tables(self, modules: Mapping[Shared, Any]) -> "Context":
        """With what these make, each once."""
        tables = tuple(shared.make(module, self) for shared, module in modules.items())
        return dataclasses.replace(self, tables=tables, table_keys=tuple(modules))

    def table(self, shared: Shared) -> Any:
        """What a layer's own `shared` has made."""
        return self.tables[self.table_keys.index(shared)]

    def of_sublayer(self, index: int | Int[Array, ""], so_far: Mapping[str, Any] | None = None) -> "Context":
        """The context of one sub-layer: its own dropout key and statistics."""
        key = None if self.dropout_key is None else jax.random.fold_in(self.dropout_key, index)
        return dataclasses.replace(self, dropout_key=key, so_far=so_far)

    def split_dropout(self) -> tuple["Context", Key[Array, ""] | None]:
        """The context of a sub-layer's mixer, and the key for the dropout on its output."""
        if self.dropout_key is None:
            return self, None
        inner, outer = jax.random.split(self.dropout_key)
        return dataclasses.replace(self, dropout_key=inner), outer
