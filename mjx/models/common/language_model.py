"""A decoder-only language model: embedding, stack, final norm, head, loss, caches.

A family is a config that writes its pattern of sub-layers. The model is cut into `enter`, `run` and `leave`:
pipeline stages, further heads and models composed of several put other things between them.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.batch import BatchArrays, check_arrays
from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.common.context import Context, Decoding, counted, following
from mjx.models.common.cross_entropy import language_model_loss
from mjx.models.common.dropout import check_rate, dropout
from mjx.models.common.embedding import Embedding, padded_vocabulary, placed
from mjx.models.common.inputs import Inputs, Targets
from mjx.models.common.linear import scaled
from mjx.models.common.norm import Norm, NormConfig
from mjx.models.common.pattern import CacheSizes, Lengths, MixerConfig, StepOnMesh, SublayerConfig, places
from mjx.models.common.split import in_order, in_row_order, token_order
from mjx.models.common.stack import Caches, Run, Stack
from mjx.models.family import Batch, Counts, Metrics, ModelConfig
from mjx.models.report import Loss, Report
from mjx.sharding import current_rules, mesh_shape, relayout, shard
from mjx.trees import Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(ModelConfig):
    """What every decoder-only language model has around its sub-layers."""

    training_choices: ClassVar[tuple[str, ...]] = (
        *("dtype", "dropout", "embedding_dropout", "init_std", "z_loss", "loss_chunks", "remat"),
        "vocab_divisor",
    )

    vocab_size: int
    """Token ids are below it."""
    hidden_size: int
    """Features of the residual stream."""
    max_positions: int | None = None
    """Rows of a table of learned positions; null for none (rotary positions are attention.rope)."""
    embedding_scale: float = 1.0
    """Factor on the token embeddings, rounded to the compute dtype (Gemma: √hidden_size)."""
    tie_embeddings: bool = False
    """Use the token table as the head."""
    dropout: float = 0.0
    """On the embeddings and on what each sub-layer adds to the residual stream."""
    embedding_dropout: float | None = None
    """On the embeddings; null: as dropout."""
    vocab_divisor: int = 128
    """The token table is padded to a multiple of this; padding never gets probability."""
    init_std: float = 0.02
    """Standard deviation of the initial weights; projections back into the residual stream get
    init_std / √(number of sub-layers) (Radford et al. 2019)."""
    logit_scale: float = 1.0
    """Factor on the logits (μP)."""
    logit_soft_cap: float | None = None
    """Bound logits l to cap · tanh(l / cap), in the loss too (Gemma 2); null: do not."""
    z_loss: float = 0.0
    """Weight of log²Z, which keeps the logits from drifting (Chowdhery et al. 2022)."""
    loss_chunks: int = 1
    """Cut each row's tokens into this many chunks for the head, so that fewer logits exist at once."""

    def __post_init__(self):
        for name in ("vocab_size", "hidden_size", "vocab_divisor", "loss_chunks"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} = {getattr(self, name)} must be positive")
        if self.max_positions is not None and self.max_positions < 1:
            raise InputError(f"model.max_positions = {self.max_positions} must be positive, or null for none")
        for name in ("init_std", "embedding_scale", "logit_scale"):
            check_scale(f"model.{name}", getattr(self, name))
        if self.logit_soft_cap is not None:
            check_scale("model.logit_soft_cap", self.logit_soft_cap, ", or null for none")
        if not self.z_loss >= 0:
            raise InputError(f"model.z_loss = {self.z_loss} must be positive, or 0 for none")
        check_rate("model.dropout", self.dropout)
        if self.embedding_dropout is not None:
            check_rate("model.embedding_dropout", self.embedding_dropout)

    def sublayers(self) -> tuple[SublayerConfig, ...]:
        """The family's pattern; `pattern` is the same, written once."""
        raise NotImplementedError(type(self))

    @property
    def final_norm(self) -> NormConfig | None:
        """Before the head; None: the stream is normed already."""
        raise NotImplementedError(type(self))

    @functools.cached_property
    def pattern(self) -> tuple[SublayerConfig, ...]:
        """The sub-layers of the stack, in order."""
        return self.sublayers()

    @functools.cached_property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Where each sub-layer's parameters are: (path, index on their `layers` axis)."""
        return tuple((f"decoder.{path}", index) for path, index in places(self.pattern))

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the token table."""
        return padded_vocabulary(self.vocab_size, self.vocab_divisor)

    @property
    def vocabulary(self) -> int:
        return self.vocab_size

    @property
    def rows_apart(self) -> bool:
        return all(sublayer.mixer.rows_apart for sublayer in self.pattern)

    @property
    def output_std(self) -> float:
        """Of projections back into the residual stream."""
        return self.init_std / math.sqrt(len(self.pattern))

    def build(self, rngs: nnx.Rngs) -> "LanguageModel":
        return LanguageModel(self, rngs=rngs)

    def upcycling(self, dense: "LanguageModelConfig") -> Callable[[Tree, Key[Array, ""]], Tree] | None:
        from mjx.models.common.moe.upcycle import Layers, upcycling

        one, other = (Layers(config.pattern, config.places) for config in (dense, self))
        return upcycling(one, other, std=self.init_std)

    def num_parameters(self) -> int:
        """Without the padding of the vocabulary."""
        tables = 1 if self.tie_embeddings else 2
        padding = (self.padded_vocab_size - self.vocab_size) * self.hidden_size
        return super().num_parameters() - tables * padding

    def num_active_parameters(self) -> int:
        """Those that a token uses, both tables counted (gpt-oss's card leaves the token table out)."""
        idle = sum(sublayer.mixer.idle_parameters(self.hidden_size) for sublayer in self.pattern)
        return self.num_parameters() - idle

    def flops(self, arrays: BatchArrays) -> float:
        rows, sequence = arrays["tokens"].shape
        return rows * sequence * self.flops_per_token(sequence)

    def flops_per_token(self, sequence: int) -> float:
        """Of forward and backward (3 × forward), multiply-adds as two, recomputation not counted."""
        lengths = Lengths(sequence)
        forward = sum(s.mixer.flops_per_token(self.hidden_size, lengths) for s in self.pattern)
        return 3 * (forward + 2 * self.hidden_size * self.vocab_size)

    def decided(self, arrays: BatchArrays) -> tuple[str, ...]:
        rows, sequence = arrays["tokens"].shape
        itemsize = jnp.dtype(self.compute_dtype).itemsize
        step = StepOnMesh(rows, sequence, mesh_shape(), current_rules(), itemsize)
        said = (mixer.work(self.hidden_size, step).said for mixer in self._mixers)
        return tuple(dict.fromkeys(sentence for sentence in said if sentence))

    def check_devices(self) -> None:
        for mixer in self._mixers:
            mixer.check_devices(self.hidden_size)

    @property
    def _mixers(self) -> tuple[MixerConfig, ...]:
        """Each once."""
        return tuple(dict.fromkeys(sublayer.mixer for sublayer in self.pattern))

    def check_batch(self, arrays: BatchArrays) -> None:
        check_arrays(
            arrays,
            {"tokens": "int32", "labels": "int32", "loss_mask": "float32"},
            {"positions": "int32", "segment_ids": "int32"},
        )
        shape = arrays["tokens"].shape
        for name, array in arrays.items():
            if array.shape != shape:
                raise InputError(
                    f"batch array '{name}' has the shape {array.shape}; that of 'tokens' is {shape}"
                )
        _, sequence = shape
        if self.max_positions is not None and sequence > self.max_positions:
            raise InputError(
                f"data.sequence_length = {sequence} is beyond model.max_positions = {self.max_positions}"
            )
        if sequence % self.loss_chunks:
            raise InputError(
                f"model.loss_chunks = {self.loss_chunks} does not divide data.sequence_length = {sequence}"
            )


class LanguageModel(nnx.Module):
    """Embedding, decoder, final norm, head."""

    def __init__(self, config: LanguageModelConfig, *, rngs: nnx.Rngs):
        embed, vocab, std = config.hidden_size, config.padded_vocab_size, config.init_std
        self.embedding = Embedding(vocab, embed, axis="vocab", std=std, rngs=rngs)
        self.positions = (
            Embedding(config.max_positions, embed, axis="positions", std=std, rngs=rngs)
            if config.max_positions is not None
            else None
        )
        self.decoder = Stack(
            config.pattern, embed, remat=config.remat, std=std, output_std=config.output_std, rngs=rngs
        )
        norm = config.final_norm
        self.final_norm = None if norm is None else Norm(norm, {"embed": embed})
        self.head = (
            None if config.tie_embeddings else Embedding(vocab, embed, axis="vocab", std=std, rngs=rngs)
        )
        self.config = config

    def __call__(
        self,
        tokens: Int[Array, "batch sequence"],
        *,
        positions: Int[Array, "batch sequence"] | None = None,
        segment_ids: Int[Array, "batch sequence"] | None = None,
    ) -> Float[Array, "batch sequence vocab"]:
        """Logits of the next token, in float32; the vocabulary's padding is cut off."""
        return self.logits(self.hidden_states(Inputs(tokens, positions, segment_ids)))

    def enter(
        self, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "batch residual_sequence embed"], Context]:
        """The residual stream in front of the stack, and what its layers read besides."""
        config, decoding, sequence = self.config, inputs.decoding, inputs.tokens.shape[1]
        order = token_order(sequence)
        inputs = inputs.in_order(order)
        positions = inputs.positions
        if positions is None:
            positions = in_order(order, following(sequence, decoding))
        context = Context(
            positions=positions,
            segment_ids=inputs.segment_ids,
            memory=inputs.memory,
            decoding=decoding,
            counted=inputs.counted,
            training=inputs.training,
            dropout_key=key,
        )
        context, embedding_key = context.split_dropout()
        x = self.embedding(inputs.tokens, config.compute_dtype)
        if config.embedding_scale != 1:
            x = x * jnp.asarray(config.embedding_scale, x.dtype)
        if inputs.embeddings is not None and inputs.at is not None:
            x = placed(x, inputs.embeddings.astype(x.dtype), inputs.at, order)
        if self.positions is not None:
            x = x + self.positions(positions, x.dtype)
        rate = config.dropout if config.embedding_dropout is None else config.embedding_dropout
        x = shard(dropout(x, rate, embedding_key), "batch", "residual_sequence", "embed")
        return x, context

    def run(
        self,
        x: Float[Array, "batch residual_sequence embed"],
        context: Context,
        caches: Caches | None = None,
        so_far: Tree | None = None,
    ) -> Run:
        """The stack; `so_far` are the model's statistics of the batch's earlier parts."""
        run = self.decoder(x, context, caches, (so_far or {}).get("decoder"))
        return run._replace(statistics={"decoder": run.statistics} if run.statistics else {})

    def leave(
        self, x: Float[Array, "batch residual_sequence embed"], targets: Targets, counts: Counts
    ) -> tuple[Float[Array, ""], Report]:
        """Final norm, head and loss: the cross-entropy of the unmasked tokens over `counts["tokens"]`."""
        config = self.config
        x = scaled(self._normed(x), config.logit_scale)
        total, sums = language_model_loss(
            relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed")),
            self.output_weight,
            targets.labels,
            targets.mask.astype(jnp.float32) / counts["tokens"],
            config.vocab_size,
            config.z_loss,
            config.loss_chunks,
            config.logit_soft_cap,
        )
        losses = {"loss": Loss(sums.cross_entropy, "tokens")}
        if config.z_loss:
            losses["z_loss"] = Loss(sums.z_loss, "tokens")
        return total, Report(losses)

    def counts(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """`tokens`: those that are not masked."""
        return {"tokens": jnp.sum(batch["loss_mask"], dtype=jnp.float32)}

    def loss(
        self,
        batch: Batch,
        counts: Counts,
        *,
        key: Key[Array, ""] | None = None,
        so_far: Tree | None = None,
        training: bool = True,
    ) -> tuple[Float[Array, ""], Report]:
        """Cross-entropy, and what the mixers add: `loss` is the former, the others have their own names."""
        inputs = Inputs(
            batch["tokens"],
            batch.get("positions"),
            batch.get("segment_ids"),
            counted=counted(batch),
            training=training,
        )
        x, context = self.enter(inputs, key)
        run = self.run(x, context, so_far=so_far)
        targets = Targets(batch["labels"], batch["loss_mask"]).in_order(token_order(inputs.tokens.shape[1]))
        total, report = self.leave(run.x, targets, counts)
        losses = dict(report.losses)
        if run.losses:  # means over this part of the batch, which counts by its tokens
            share = self.counts(batch)["tokens"] / counts["tokens"]
            total = total + share * sum(run.losses.values())
            for name, value in run.losses.items():
                losses[name] = Loss(share * jax.lax.stop_gradient(value), "tokens")
        return total, Report(losses, run.statistics)

    def after_step(self, parameters: Tree, statistics: Tree) -> Tree:
        """The parameters after what the mixers do to them by the batch's statistics."""
        if "decoder" not in statistics:
            return parameters
        decoder = self.decoder.after_step(parameters["decoder"], statistics["decoder"])
        return {**parameters, "decoder": decoder}

    def summary(self, statistics: Tree) -> Metrics:
        """What the mixers make of the batch's statistics."""
        return self.decoder.summary(statistics["decoder"]) if "decoder" in statistics else {}

    def hidden_states(self, inputs: Inputs) -> Float[Array, "batch residual_sequence embed"]:
        """The residual stream after the final norm: what the head, and embeddings of texts, are made of."""
        x, context = self.enter(inputs)
        return in_row_order(token_order(inputs.tokens.shape[1]), self._normed(self.run(x, context).x))

    def logits(self, hidden: Float[Array, "batch sequence embed"]) -> Float[Array, "batch sequence vocab"]:
        """The head, for generation and evaluation; training's loss never makes these whole."""
        hidden = scaled(hidden, self.config.logit_scale)
        weight = self.output_weight.astype(hidden.dtype)
        logits = jnp.einsum("bse,ve->bsv", hidden, weight, preferred_element_type=jnp.float32)
        if cap := self.config.logit_soft_cap:
            logits = cap * jnp.tanh(logits / cap)
        return shard(logits, "batch", "sequence", "vocab")[..., : self.config.vocab_size]

    def unrolled(self) -> "LanguageModel":
        """The same model with every layer's parameters in arrays of their own, for decoding."""
        model = copy.copy(self)
        model.decoder = self.decoder.unrolled()
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
        real = jnp.clip(lengths - offset, 0, tokens.shape[1])
        inputs = Inputs(tokens, decoding=Decoding(offset, real, lengths))
        return self._behind_prompts(inputs, caches, real)

    def _behind_prompts(
        self, inputs: Inputs, caches: Caches, real: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch vocab"], Caches]:
        run = self.run(*self.enter(inputs), caches)
        assert run.caches is not None
        final = jnp.maximum(real - 1, 0)[:, None, None]
        return self.logits(jnp.take_along_axis(self._normed(run.x), final, axis=1))[:, 0], run.caches

    def next(
        self, tokens: Int[Array, "batch new"], caches: Caches, offset: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch new vocab"], Caches]:
        """Logits behind each of these tokens, which see all that their row's cache holds."""
        decoding = Decoding(offset, jnp.full(offset.shape, tokens.shape[1], jnp.int32))
        run = self.run(*self.enter(Inputs(tokens, decoding=decoding)), caches)
        assert run.caches is not None
        return self.logits(self._normed(run.x)), run.caches

    def init_caches(self, sizes: CacheSizes) -> Caches:
        """Empty caches, in the compute dtype."""
        return self.decoder.init_caches(sizes, self.config.compute_dtype)

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self.config.vocab_size

    @property
    def max_positions(self) -> int | None:
        """Tokens that a row may have; None without learned positions."""
        return self.config.max_positions

    @property
    def caches_grow(self) -> bool:
        """Whether some layer keeps something of every token."""
        one, two = (jax.eval_shape(lambda n=n: self.init_caches(CacheSizes(1, n))) for n in (1, 2))
        return jax.tree.leaves(one) != jax.tree.leaves(two)

    @property
    def output_weight(self) -> Float[Array, "vocab embed"]:
        """The head's table; the token table itself where they are tied."""
        return (self.embedding if self.head is None else self.head).weight[...]

    def _normed(self, x: Any) -> Any:
        return x if self.final_norm is None else self.final_norm(x)
