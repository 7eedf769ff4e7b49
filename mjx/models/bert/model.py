"""An encoder with its heads: of hidden tokens, of pairs of sentences, of classes."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.bert.config import BertConfig
from mjx.models.common.context import Context, counted
from mjx.models.common.dropout import dropout
from mjx.models.common.linear import Linear
from mjx.models.common.token_model.inputs import Inputs, Targets
from mjx.models.common.token_model.model import TokenModel
from mjx.models.family import Batch, Counts
from mjx.models.report import Loss, Report
from mjx.sharding import relayout
from mjx.trees import Tree


class Bert(TokenModel):
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

        With `classes` only `samples`: the rows that count."""
        if self.classifier is not None:
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

        With `classes`: of the rows' labels, or for a number the squared error, and the `accuracy`."""
        x, context = self.enter(inputs_of(batch, training=training), key)
        run = self.run(x, context, so_far=so_far)
        if self.classifier is not None:
            total, losses = self._of_classes(run.x, context, batch, counts)
            return total, Report(losses, run.statistics)
        total, report = self.left(run, Targets(batch["labels"], batch["loss_mask"]), counts)
        if self.sentence_head is None:
            return total, report
        logits = self.sentence_logits(self.pooled(self._normed(run.x)))
        loss = -jnp.sum(_chosen(logits, batch["is_random"]) * _is_sample(batch)) / counts["samples"]
        said = Loss(jax.lax.stop_gradient(loss), "samples")
        return total + loss, Report({**report.losses, "sentence_loss": said}, report.statistics)

    def _of_classes(
        self, x: Float[Array, "batch residual_sequence embed"], context: Context, batch: Batch, counts: Counts
    ) -> tuple[Float[Array, ""], dict[str, Loss]]:
        """The loss of the rows' classes, or numbers, behind the stack's `x`."""
        labels, share = batch["labels"], batch["loss_mask"].astype(jnp.float32) / counts["samples"]
        _, key = context.split_dropout()
        logits = self.class_logits(dropout(self.pooled(self._normed(x)), self.config.dropout, key))
        if self.config.classes == 1:
            loss = jnp.sum(share * (logits[:, 0] - labels) ** 2)
            return loss, {"loss": Loss(jax.lax.stop_gradient(loss), "samples")}
        loss = -jnp.sum(share * _chosen(logits, labels))
        accuracy = jnp.sum(share * (jnp.argmax(logits, axis=-1) == labels))
        said = {"loss": jax.lax.stop_gradient(loss), "accuracy": accuracy}
        return loss, {name: Loss(total, "samples") for name, total in said.items()}

    def pooled(self, hidden: Float[Array, "batch residual_sequence embed"]) -> Float[Array, "batch latent"]:
        """What `hidden_states` are, of whole rows: of their first token."""
        assert self.pooler is not None
        hidden = relayout(hidden, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        return jnp.tanh(self.pooler(hidden[:, :1]))[:, 0]

    def sentence_logits(self, pooled: Float[Array, "batch latent"]) -> Float[Array, "batch classes"]:
        """Of whether the second sentence follows the first (0), or is another (1); in float32."""
        assert self.sentence_head is not None
        return self.sentence_head(pooled[:, None])[:, 0].astype(jnp.float32)

    def class_logits(self, pooled: Float[Array, "batch latent"]) -> Float[Array, "batch classes"]:
        """Of every class, or with one the number itself; in float32."""
        assert self.classifier is not None
        return self.classifier(pooled[:, None])[:, 0].astype(jnp.float32)

    def embeddings(
        self,
        tokens: Int[Array, "batch sequence"],
        *,
        segment_ids: Int[Array, "batch sequence"] | None = None,
        token_types: Int[Array, "batch sequence"] | None = None,
    ) -> Float[Array, "batch embed"]:
        """One vector a row: the mean of its tokens but the first and the last, which only begin and end it.

        In float32. RETRO looks texts up by it."""
        inputs = Inputs(tokens, segment_ids=segment_ids, token_types=token_types)
        hidden = self.hidden_states(inputs).astype(jnp.float32)
        real = jnp.ones(tokens.shape, bool) if segment_ids is None else segment_ids > 0
        place, length = jnp.arange(tokens.shape[1]), jnp.sum(real, axis=1, keepdims=True)
        inner = (place > 0) & (place < length - 1)
        total = jnp.sum(hidden * inner[..., None], axis=1)
        return total / jnp.maximum(jnp.sum(inner, axis=1, keepdims=True), 1)


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


def _chosen(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """log softmax of each row's label; of a label that is none (-1), some number."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]


def _is_sample(batch: Batch) -> Float[Array, " batch"]:
    """1 for rows with tokens, 0 for those that only fill the batch: their `is_random` is -1."""
    segments = batch.get("segment_ids")
    real = batch["loss_mask"] > 0 if segments is None else segments > 0
    return (jnp.any(real, axis=1) & (batch["is_random"] >= 0)).astype(jnp.float32)
