"""An encoder with its heads: of hidden tokens, and of pairs of sentences."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.bert.config import BertConfig
from mjx.models.common.context import counted
from mjx.models.common.linear import Linear
from mjx.models.common.token_model.inputs import Inputs, Targets
from mjx.models.common.token_model.model import TokenModel
from mjx.models.family import Batch, Counts
from mjx.models.report import Loss, Report
from mjx.sharding import relayout
from mjx.trees import Tree


class Bert(TokenModel):
    """Embedding, encoder, final norm, head of tokens; pooler and head of pairs."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        embed, std = config.hidden_size, config.init_std
        narrow, pooled = {"embed": embed}, {"latent": embed}
        self.pooler = Linear(narrow, pooled, bias=True, std=std, rngs=rngs) if config.pooler else None
        self.sentence_head = (
            Linear(pooled, {"classes": 2}, bias=True, std=std, rngs=rngs) if config.sentence_head else None
        )
        self.config: BertConfig = config

    def counts(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """`tokens`: those that are not masked; with a head of pairs `samples`: rows that are not padding."""
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
        """Cross-entropy of the hidden tokens, `loss`, and of what the head of pairs says, `sentence_loss`."""
        x, context = self.enter(inputs_of(batch, training=training), key)
        run = self.run(x, context, so_far=so_far)
        total, report = self.left(run, Targets(batch["labels"], batch["loss_mask"]), counts)
        if self.sentence_head is None:
            return total, report
        logits = self.sentence_logits(self.pooled(self._normed(run.x)))
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["is_random"][:, None], axis=1)[:, 0]
        loss = -jnp.sum(chosen * _is_sample(batch)) / counts["samples"]
        said = Loss(jax.lax.stop_gradient(loss), "samples")
        return total + loss, Report({**report.losses, "sentence_loss": said}, report.statistics)

    def pooled(self, hidden: Float[Array, "batch residual_sequence embed"]) -> Float[Array, "batch latent"]:
        """What `hidden_states` are, of whole rows: of their first token."""
        assert self.pooler is not None
        hidden = relayout(hidden, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        return jnp.tanh(self.pooler(hidden[:, :1]))[:, 0]

    def sentence_logits(self, pooled: Float[Array, "batch latent"]) -> Float[Array, "batch classes"]:
        """Of whether the second sentence follows the first (0), or is another (1); in float32."""
        assert self.sentence_head is not None
        return self.sentence_head(pooled[:, None])[:, 0].astype(jnp.float32)

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
    """What enters the model of a training batch."""
    return Inputs(
        batch["tokens"],
        batch.get("positions"),
        batch.get("segment_ids"),
        batch.get("token_types"),
        counted=counted(batch),
        training=training,
    )


def _is_sample(batch: Batch) -> Float[Array, " batch"]:
    """1 for rows with tokens, 0 for those that only fill the batch."""
    segments = batch.get("segment_ids")
    real = batch["loss_mask"] > 0 if segments is None else segments > 0
    return jnp.any(real, axis=1).astype(jnp.float32)
