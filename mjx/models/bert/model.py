"""An encoder with its heads: of hidden tokens, of pairs of sentences, of classes; and texts that belong
together."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.bert.config import BertConfig
from mjx.models.common.classes import TellsClasses, Told, held_against, log_chance
from mjx.models.common.context import Context, counted
from mjx.models.common.contrastive import contrastive_losses
from mjx.models.common.dropout import dropout
from mjx.models.common.linear import Linear
from mjx.models.common.token_model.inputs import Inputs, Targets
from mjx.models.common.token_model.model import TokenModel
from mjx.models.family import Batch, Counts
from mjx.models.report import Loss, Report
from mjx.sharding import relayout, shard
from mjx.trees import Tree


class Bert(TellsClasses, TokenModel):
    """Embedding, encoder, final norm, head of tokens; pooler, and heads of pairs or of classes."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        embed, std = config.hidden_size, config.init_std
        narrow, pooled = {"embed": embed}, {"latent": embed}
        self.pooler = Linear(narrow, pooled, bias=True, std=std, rngs=rngs) if config.pooler else None
        self.sentence_head = (
            Linear(pooled, {"classes": 2}, bias=True, std=std, rngs=rngs) if config.sentence_head else None
        )
        self.classifier = (
            Linear(pooled, {"classes": config.classes}, bias=True, std=std, rngs=rngs)
            if config.classes is not None
            else None
        )
        self.config: BertConfig = config

    def counts(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """`tokens`: those that are not masked; with a head of pairs `samples`: rows that are not padding.

        With `classes` or `contrastive` only `samples`: the rows that count."""
        if self.classifier is not None or self.config.contrastive is not None:
            return {"samples": jnp.sum(batch["loss_mask"], dtype=jnp.float32)}
        counts = super().counts(batch)
        if self.sentence_head is not None:
            counts["samples"] = jnp.sum(_is_sample(batch))
        return counts

    def loss(
        self,
        batch: Batch,
        counts: Counts,
        *,
        key: Key[Array, ""] | None = None,
        so_far: Tree | None = None,
        training: bool = True,
    ) -> tuple[Float[Array, ""], Report]:
        """Cross-entropy of the hidden tokens, `loss`, and of what the head of pairs says, `sentence_loss`.

        With `classes`: of the rows' labels, or for a number the squared error, and the `accuracy`. With
        `contrastive`: of the second text among all of the batch, and how often it is nearest: `accuracy`."""
        if self.config.contrastive is not None:
            return self._of_pairs(batch, counts, key, training=training)
        x, context = self.enter(inputs_of(batch, training=training), key)
        run = self.run(x, context, so_far=so_far)
        if self.classifier is not None:
            told = self._of_classes(run.x, context, batch, counts)
            return told.loss, Report(told.losses, run.statistics, {} if training else told.rows)
        total, report = self.left(run, Targets(batch["labels"], batch["loss_mask"]), counts)
        if self.sentence_head is None:
            return total, report
        logits = self.sentence_logits(self.pooled(self._normed(run.x), _rows(context.segment_ids)))
        loss = -jnp.sum(log_chance(logits, batch["is_random"]) * _is_sample(batch)) / counts["samples"]
        said = Loss(jax.lax.stop_gradient(loss), "samples")
        return total + loss, Report({**report.losses, "sentence_loss": said}, report.statistics)

    def _of_classes(
        self, x: Float[Array, "batch residual_sequence embed"], context: Context, batch: Batch, counts: Counts
    ) -> Told:
        """What the classifier says of the rows, behind the stack's `x`."""
        _, key = context.split_dropout()
        read = self.row_features(self._normed(x), context.segment_ids)
        logits = self.class_logits(dropout(read, self.config.dropout, key))
        return held_against(logits, batch["labels"], batch["loss_mask"], counts["samples"])

    def _of_pairs(
        self, batch: Batch, counts: Counts, key: Key[Array, ""] | None, *, training: bool
    ) -> tuple[Float[Array, ""], Report]:
        """The loss of texts that belong together; both are read by one pass, each pair by one device."""
        config = self.config.contrastive
        assert config is not None

        def side_by_side(name: str) -> Int[Array, "texts sequence"]:
            both = jnp.stack([batch[name], batch[f"other_{name}"]], axis=1)
            return shard(both.reshape(-1, both.shape[-1]), "batch", "sequence")

        counted_rows = batch["loss_mask"].astype(jnp.float32)
        segment_ids = side_by_side("segment_ids")
        inputs = Inputs(
            side_by_side("tokens"),
            segment_ids=segment_ids,
            counted=segment_ids * jnp.repeat(counted_rows, 2)[:, None],
            training=training,
        )
        x, context = self.enter(inputs, key)
        run = self.run(x, context)
        vectors = self.row_states(self._normed(run.x), context.segment_ids)
        pairs = shard(vectors.reshape(-1, 2, vectors.shape[-1]), "batch", None, "latent")
        losses, nearest = contrastive_losses(
            pairs[:, 0], pairs[:, 1], counted_rows, 1 / config.temperature, symmetric=config.symmetric
        )
        share = counted_rows / counts["samples"]
        loss = jnp.sum(share * losses)
        said = {"loss": jax.lax.stop_gradient(loss), "accuracy": jnp.sum(share * nearest)}
        report = Report({name: Loss(total, "samples") for name, total in said.items()}, run.statistics)
        return loss, report

    def classified(self, batch: Batch) -> Float[Array, "batch classes"]:
        """Logits of each row's classes, or its number, in float32."""
        inputs = Inputs(
            batch["tokens"], segment_ids=batch["segment_ids"], token_types=batch.get("token_types")
        )
        return self.class_logits(self.row_features(self.hidden_states(inputs), batch["segment_ids"]))

    @property
    def has_pooler(self) -> bool:
        return self.pooler is not None

    @property
    def is_pooled(self) -> bool:
        return False

    def encoded(self, batch: Batch) -> Float[Array, "batch residual_sequence embed"]:
        """The states of `tokens` behind the final norm."""
        given = (batch.get("positions"), batch.get("segment_ids"), batch.get("token_types"))
        return self.hidden_states(Inputs(batch["tokens"], *given))

    def row_states(
        self,
        hidden: Float[Array, "batch residual_sequence embed"],
        segment_ids: Int[Array, "batch sequence"] | None,
    ) -> Float[Array, "batch embed"]:
        """Of a row's states what `pooling` makes of them; the mean is in float32."""
        if self.config.pooling == "first" or segment_ids is None:
            hidden = relayout(hidden, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
            return hidden[:, 0] if self.config.pooling == "first" else jnp.mean(hidden, axis=1)
        real = shard((segment_ids > 0).astype(jnp.float32), "batch", "residual_sequence")
        total = jnp.sum(hidden.astype(jnp.float32) * real[..., None], axis=1)
        return total / jnp.maximum(jnp.sum(real, axis=1, keepdims=True), 1)

    def row_features(
        self,
        hidden: Float[Array, "batch residual_sequence embed"],
        segment_ids: Int[Array, "batch sequence"] | None = None,
    ) -> Float[Array, "batch latent"]:
        """What the classifier reads."""
        if self.pooler is not None:
            return self.pooled(hidden, _rows(segment_ids))
        assert self.head_transform is not None
        states = self.row_states(hidden, segment_ids).astype(hidden.dtype)
        return self.head_transform(states[:, None])[:, 0]

    def pooled(
        self, hidden: Float[Array, "batch residual_sequence embed"], batch: Batch | None = None
    ) -> Float[Array, "batch latent"]:
        """What the pooler makes of whole rows, of which only the `segment_ids` of a batch are looked at."""
        assert self.pooler is not None
        states = self.row_states(hidden, (batch or {}).get("segment_ids")).astype(hidden.dtype)
        return jnp.tanh(self.pooler(states[:, None]))[:, 0]

    def sentence_logits(self, pooled: Float[Array, "batch latent"]) -> Float[Array, "batch classes"]:
        """Of whether the second sentence follows the first (0), or is another (1); in float32."""
        assert self.sentence_head is not None
        return self.sentence_head(pooled[:, None])[:, 0].astype(jnp.float32)

    def class_logits(self, pooled: Float[Array, "batch latent"]) -> Float[Array, "batch classes"]:
        """Of every class, or with one the number itself; in float32."""
        assert self.classifier is not None
        return self.classifier(pooled[:, None])[:, 0].astype(jnp.float32)


def inputs_of(batch: Batch, *, training: bool) -> Inputs:
    """What enters the model of a training batch; where rows have labels, all tokens of these count."""
    if batch["loss_mask"].ndim < batch["tokens"].ndim:
        mask = jnp.broadcast_to(batch["loss_mask"][:, None], batch["tokens"].shape)
        batch = {**batch, "loss_mask": mask}
    return Inputs(
        batch["tokens"],
        batch.get("positions"),
        batch.get("segment_ids"),
        batch.get("token_types"),
        counted=counted(batch),
        training=training,
    )


def _is_sample(batch: Batch) -> Float[Array, " batch"]:
    """1 for rows with tokens, 0 for those that only fill the batch: their `is_random` is -1."""
    segments = batch.get("segment_ids")
    real = batch["loss_mask"] > 0 if segments is None else segments > 0
    return (jnp.any(real, axis=1) & (batch["is_random"] >= 0)).astype(jnp.float32)


def _rows(segment_ids: Int[Array, "batch sequence"] | None) -> Batch:
    return {} if segment_ids is None else {"segment_ids": segment_ids}
