"""A token model that continues text: caches, prompts in parts, token by token."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.common.context import Decoding
from mjx.models.common.pattern import CacheSizes
from mjx.models.common.stack import Caches
from mjx.models.common.token_model.config import TokenModelConfig
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.common.token_model.model import TokenModel
from mjx.models.family import Batch, Begun
from mjx.trees import Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(TokenModelConfig):
    """Of a model that continues text: what every decoder-only language model has around its sub-layers."""

    def build(self, rngs: nnx.Rngs) -> "LanguageModel":
        return LanguageModel(self, rngs=rngs)

    def upcycling(self, dense: "LanguageModelConfig") -> Callable[[Tree, Key[Array, ""]], Tree] | None:
        from mjx.models.common.moe.upcycle import Layers, upcycling

        one, other = (Layers(config.pattern, config.places) for config in (dense, self))
        return upcycling(one, other, std=self.init_std)


class LanguageModel(TokenModel):
    """A token model that continues text: `mjx.models.family.Generates`."""

    def unrolled(self) -> "LanguageModel":
        """The same model with every layer's parameters in arrays of their own, for decoding."""
        model = copy.copy(self)
        setattr(model, self.config.stack_name, self.stack.unrolled())
        return model

    def begin(
        self, prompt: Batch, lengths: Int[Array, " batch"], slots: int
    ) -> tuple[Float[Array, "batch vocab"], Caches]:
        """Logits of the token after each row's prompt (`tokens`), and the caches with it."""
        return self.begin_with(Inputs(prompt["tokens"]), lengths, slots)

    def begin_with(
        self, inputs: Inputs, lengths: Int[Array, " batch"], slots: int
    ) -> tuple[Float[Array, "batch vocab"], Caches]:
        """`begin`, for inputs that are not tokens alone."""
        batch = inputs.tokens.shape[0]
        memory = 0 if inputs.memory is None else inputs.memory.states.shape[1]
        caches = self.init_caches(CacheSizes(batch, slots, memory))
        real = jnp.minimum(lengths, inputs.tokens.shape[1])
        decoding = Decoding(jnp.zeros((batch,), jnp.int32), real, lengths, prompt=True)
        return self._behind_prompts(inputs._replace(decoding=decoding), caches, real)

    def read_on(
        self,
        tokens: Int[Array, "batch new"],
        caches: Caches,
        offset: Int[Array, " batch"],
        lengths: Int[Array, " batch"],
    ) -> tuple[Float[Array, "batch vocab"], Caches]:
        """`begin`, for the tokens of the prompts behind those that the caches hold."""
        return self.read_on_with(Inputs(tokens), caches, offset, lengths)

    def read_on_with(
        self, inputs: Inputs, caches: Caches, offset: Int[Array, " batch"], lengths: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch vocab"], Caches]:
        """`read_on`, for inputs that are not tokens alone."""
        real = jnp.clip(lengths - offset, 0, inputs.tokens.shape[1])
        decoding = Decoding(offset, real, lengths)
        return self._behind_prompts(inputs._replace(decoding=decoding), caches, real)

    def _behind_prompts(
        self, inputs: Inputs, caches: Any, real: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch vocab"], Any]:
        run = self.run(*self.enter(inputs), caches)
        assert run.caches is not None
        final = jnp.maximum(real - 1, 0)[:, None, None]
        return self.logits(jnp.take_along_axis(self._normed(run.x), final, axis=1))[:, 0], run.caches

    def next(
        self, tokens: Int[Array, "batch new"], caches: Caches, offset: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch new vocab"], Caches]:
        """Logits behind each of these tokens, which see all that their row's cache holds."""
        return self.next_with(Inputs(tokens), caches, offset)

    def next_with(
        self, inputs: Inputs, caches: Caches, offset: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch new vocab"], Caches]:
        """`next`, for inputs that are not tokens alone."""
        decoding = Decoding(offset, jnp.full(offset.shape, inputs.tokens.shape[1], jnp.int32))
        run = self.run(*self.enter(inputs._replace(decoding=decoding)), caches)
        assert run.caches is not None
        return self.logits(self._normed(run.x)), run.caches

    @property
    def answers(self) -> bool:
        return False

    def begun(self, prompts: Sequence[Sequence[int]], start: int | None) -> Begun:
        """The prompts themselves, which the text continues."""
        return Begun("tokens", prompts)

    def rows_of(self, caches: Caches, rows: Int[Array, " chosen"]) -> Caches:
        """The caches of these rows: theirs is the axis behind the layers'."""
        return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=1), caches)

    def init_caches(self, sizes: CacheSizes) -> Caches:
        """Empty caches, in the compute dtype."""
        return self.stack.init_caches(sizes, self.config.compute_dtype)

    @property
    def caches_grow(self) -> bool:
        """Whether some layer keeps something of every token."""
        one, two = (jax.eval_shape(lambda n=n: self.init_caches(CacheSizes(1, n))) for n in (1, 2))
        return jax.tree.leaves(one) != jax.tree.leaves(two)
