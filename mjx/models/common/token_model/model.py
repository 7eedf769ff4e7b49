"""A model of token ids: embedding, stack, final norm, head, loss.

A family is a config that writes its pattern of sub-layers. The model is cut into `enter`, `run` and `leave`:
pipeline stages, further heads and models composed of several put other things between them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.common.context import Context, counted, following
from mjx.models.common.dropout import dropout
from mjx.models.common.linear import scaled
from mjx.models.common.norm import Norm
from mjx.models.common.parameter import parameter
from mjx.models.common.split import in_order, in_row_order, token_order
from mjx.models.common.stack import Run
from mjx.models.common.stacked_model import StackedModel
from mjx.models.common.token_model.config import TokenModelConfig
from mjx.models.common.token_model.cross_entropy import language_model_loss
from mjx.models.common.token_model.embedding import Embedding, placed
from mjx.models.common.token_model.head import HeadTransform
from mjx.models.common.token_model.inputs import Inputs, Targets
from mjx.models.family import Batch, Counts
from mjx.models.report import Loss, Report
from mjx.sharding import relayout, shard
from mjx.trees import Tree


class Entrance(NamedTuple):
    """What is added to the embeddings of tokens in front of a stack."""

    positions: Embedding | None
    norm: Norm | None


class TokenModel(StackedModel):
    """Embedding, stack, final norm, head."""

    def __init__(self, config: TokenModelConfig, *, rngs: nnx.Rngs):
        embed, vocab, std = config.hidden_size, config.padded_vocab_size, config.init_std
        self.embedding = Embedding(vocab, embed, axis="vocab", std=std, rngs=rngs)
        self.positions = (
            Embedding(config.max_positions, embed, axis="positions", std=std, rngs=rngs)
            if config.max_positions is not None
            else None
        )
        self.token_types = (
            Embedding(config.token_types, embed, axis="token_types", std=std, rngs=rngs)
            if config.token_types
            else None
        )
        norm = config.embedding_norm
        self.embedding_norm = None if norm is None else Norm(norm, {"embed": embed})
        self._stack(config, rngs)
        norm = config.final_norm
        self.final_norm = None if norm is None else Norm(norm, {"embed": embed})
        self.head = (
            None if config.tie_embeddings else Embedding(vocab, embed, axis="vocab", std=std, rngs=rngs)
        )
        transform = config.head_transform
        self.head_transform = (
            None if transform is None else HeadTransform(transform, embed, std=std, rngs=rngs)
        )
        bias = jnp.zeros((vocab,), jnp.float32)
        self.head_bias = parameter(bias, "vocab") if config.head_bias else None
        self.config: TokenModelConfig = config

    def __call__(
        self,
        tokens: Int[Array, "batch sequence"],
        *,
        positions: Int[Array, "batch sequence"] | None = None,
        segment_ids: Int[Array, "batch sequence"] | None = None,
    ) -> Float[Array, "batch sequence vocab"]:
        """Logits of the next token, in float32; the vocabulary's padding is cut off."""
        return self.logits(self.hidden_states(Inputs(tokens, positions, segment_ids)))

    @property
    def entrance(self) -> Entrance:
        """That of `stack`."""
        return Entrance(self.positions, self.embedding_norm)

    def enter(
        self, inputs: Inputs, key: Key[Array, ""] | None = None, entrance: Entrance | None = None
    ) -> tuple[Float[Array, "batch residual_sequence embed"], Context]:
        """The residual stream in front of a stack, and what its layers read besides."""
        table, norm = entrance or self.entrance
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
        if table is not None:
            x = x + table(positions + config.first_position, x.dtype)
        if self.token_types is not None:
            types = inputs.token_types
            x = x + self.token_types(jnp.zeros_like(inputs.tokens) if types is None else types, x.dtype)
        x = x if norm is None else norm(x)
        rate = config.dropout if config.embedding_dropout is None else config.embedding_dropout
        x = shard(dropout(x, rate, embedding_key), "batch", "residual_sequence", "embed")
        return x, context

    def leave(
        self, x: Float[Array, "batch residual_sequence embed"], targets: Targets, counts: Counts
    ) -> tuple[Float[Array, ""], Report]:
        """Final norm, head and loss: the cross-entropy of the unmasked tokens over `counts["tokens"]`."""
        config = self.config
        x = scaled(self._before_head(self._normed(x)), config.logit_scale)
        total, sums = language_model_loss(
            relayout(x, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed")),
            self.output_weight,
            targets.labels,
            targets.mask.astype(jnp.float32) / counts["tokens"],
            config.vocab_size,
            config.z_loss,
            config.loss_chunks,
            config.logit_soft_cap,
            self._bias,
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
        return self.loss_of(inputs_of(batch, training=training), batch, counts, key=key, so_far=so_far)

    def loss_of(
        self,
        inputs: Inputs,
        batch: Batch,
        counts: Counts,
        *,
        key: Key[Array, ""] | None = None,
        so_far: Tree | None = None,
    ) -> tuple[Float[Array, ""], Report]:
        """`loss`, of what else than a batch's tokens may enter."""
        x, context = self.enter(inputs, key)
        run = self.run(x, context, so_far=so_far)
        return self.left(run, Targets(batch["labels"], batch["loss_mask"]), counts)

    def left(self, run: Run, targets: Targets, counts: Counts) -> tuple[Float[Array, ""], Report]:
        """`leave`, with what the mixers add."""
        mask = targets.mask
        total, report = self.leave(run.x, targets.in_order(token_order(mask.shape[1])), counts)
        losses = dict(report.losses)
        if run.losses:  # means over this part of the batch, which counts by its tokens
            share = jnp.sum(mask, dtype=jnp.float32) / counts["tokens"]
            total = total + share * sum(run.losses.values())
            for name, value in run.losses.items():
                losses[name] = Loss(share * jax.lax.stop_gradient(value), "tokens")
        return total, Report(losses, run.statistics)

    def hidden_states(self, inputs: Inputs) -> Float[Array, "batch residual_sequence embed"]:
        """The residual stream after the final norm: what the head, and embeddings of texts, are made of."""
        return self.read(inputs).x

    def read(self, inputs: Inputs, key: Key[Array, ""] | None = None, so_far: Tree | None = None) -> Run:
        """`hidden_states`, with what the mixers say besides."""
        x, context = self.enter(inputs, key)
        run = self.run(x, context, so_far=so_far)
        return run._replace(x=in_row_order(token_order(inputs.tokens.shape[1]), self._normed(run.x)))

    def logits(self, hidden: Float[Array, "batch sequence embed"]) -> Float[Array, "batch sequence vocab"]:
        """The head, for generation and evaluation; training's loss never makes these whole."""
        hidden = scaled(self._before_head(hidden), self.config.logit_scale)
        weight = self.output_weight.astype(hidden.dtype)
        logits = jnp.einsum("bse,ve->bsv", hidden, weight, preferred_element_type=jnp.float32)
        logits = logits if self._bias is None else logits + self._bias
        if cap := self.config.logit_soft_cap:
            logits = cap * jnp.tanh(logits / cap)
        return shard(logits, "batch", "sequence", "vocab")[..., : self.config.vocab_size]

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self.config.vocab_size

    @property
    def max_positions(self) -> int | None:
        """Tokens that a row may have; None without learned positions."""
        return self.config.longest_row

    @property
    def output_weight(self) -> Float[Array, "vocab embed"]:
        """The head's table; the token table itself where they are tied."""
        return (self.embedding if self.head is None else self.head).weight[...]

    def _normed(self, x: Any) -> Any:
        return x if self.final_norm is None else self.final_norm(x)

    def _before_head(self, x: Any) -> Any:
        return x if self.head_transform is None else self.head_transform(x)

    @property
    def _bias(self) -> Float[Array, " vocab"] | None:
        return None if self.head_bias is None else self.head_bias[...]


def inputs_of(batch: Batch, *, training: bool) -> Inputs:
    """What enters the model of a batch that it trains on."""
    return Inputs(
        batch["tokens"],
        batch.get("positions"),
        batch.get("segment_ids"),
        counted=counted(batch),
        training=training,
    )
