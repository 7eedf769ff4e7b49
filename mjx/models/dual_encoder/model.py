"""Two towers: a picture and a text each become a vector, and a pair is told by the angle between these."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from mjx.metrics.scores import retrieval_scores
from mjx.models.common.contrastive import contrastive_losses, unit
from mjx.models.common.linear import Linear
from mjx.models.common.parameter import parameter
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.dual_encoder.config import DualEncoderConfig, ProjectionConfig
from mjx.models.dual_encoder.sigmoid_loss import sigmoid_loss
from mjx.models.family import Batch, Counts, Metrics
from mjx.models.report import Loss, Report
from mjx.sharding import inside, shard
from mjx.trees import Tree


class DualEncoder(nnx.Module):
    """Both towers, what stands behind them, and the scale and bias of logits."""

    def __init__(self, config: DualEncoderConfig, *, rngs: nnx.Rngs):
        vision, text = config.towers
        self.vision, self.text = vision.build(rngs), text.build(rngs)

        def projection(said: ProjectionConfig | None, read: int) -> Linear | None:
            if said is None:
                return None
            into, out = {"embed": read}, {"latent": said.features}
            return Linear(into, out, bias=said.bias, std=read**-0.5, rngs=rngs)

        self.vision_projection = projection(config.vision_projection, vision.said_features)
        self.text_projection = projection(config.text_projection, text.hidden_size)

        def number(value: float) -> nnx.Param:
            return parameter(jnp.full((1,), value, jnp.float32), "latent", precise=True)

        self.logit_scale = number(config.logit_scale)
        self.logit_bias = None if config.logit_bias is None else number(config.logit_bias)
        self.config = config

    def __call__(
        self, images: Float[Array, "pictures channels height width"], tokens: Int[Array, "batch sequence"]
    ) -> Float[Array, "pictures batch"]:
        """Logits of each picture and each text, in float32."""
        return self.logits(self.picture_vectors(images), self.text_vectors(tokens))

    def picture_vectors(
        self,
        images: Float[Array, "batch channels height width"],
        key: Key[Array, ""] | None = None,
        *,
        training: bool = False,
    ) -> Float[Array, "batch latent"]:
        """What each picture is made into, of length one, in float32."""
        with inside("vision"):
            inputs = self.vision.pictures(images)._replace(training=training)
            pooled = self.vision.pooled(self.vision(inputs, key), inputs)
        return self._vectors(pooled, self.vision_projection)

    def text_vectors(
        self, tokens: Int[Array, "batch sequence"], segment_ids: Int[Array, "batch sequence"] | None = None
    ) -> Float[Array, "batch latent"]:
        """What each text is made into, of length one, in float32; where `segment_ids` are 0 there is none."""
        inputs = self._inputs(tokens, segment_ids)
        return self._text_vectors(self.text.read(inputs).x, inputs)

    def logits(
        self, pictures: Float[Array, "pictures latent"], texts: Float[Array, "texts latent"]
    ) -> Float[Array, "pictures texts"]:
        """Of each pair."""
        logits = jnp.exp(self.logit_scale[...]) * (pictures @ texts.T)
        return logits if self.logit_bias is None else logits + self.logit_bias[...]

    def counts(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """`samples`: the pairs that count."""
        return {"samples": jnp.sum(batch["loss_mask"], dtype=jnp.float32)}

    def loss(
        self,
        batch: Batch,
        counts: Counts,
        *,
        key: Key[Array, ""] | None = None,
        so_far: Tree | None = None,
        training: bool = True,
    ) -> tuple[Float[Array, ""], Report]:
        """Of a picture and its text among all of the batch, and how often the text is nearest: `accuracy`."""
        of_vision, of_text = (None, None) if key is None else jax.random.split(key)
        counted = batch["loss_mask"].astype(jnp.float32)
        inputs = self._inputs(batch["tokens"], batch.get("segment_ids"))
        real = jnp.ones_like(inputs.tokens) if inputs.segment_ids is None else inputs.segment_ids
        inputs = inputs._replace(counted=(real > 0) * counted[:, None], training=training)
        run = self.text.read(inputs, of_text, (so_far or {}).get("text"))
        texts = self._text_vectors(run.x, inputs)
        pictures = self.picture_vectors(batch["images"], of_vision, training=training)
        scale = jnp.exp(self.logit_scale[0])
        if self.logit_bias is None:
            losses, nearest = contrastive_losses(pictures, texts, counted, scale, symmetric=True)
            loss, right = jnp.sum(counted * losses), jnp.sum(counted * nearest)
        else:
            loss, right = sigmoid_loss(pictures, texts, counted, scale, self.logit_bias[0])
        loss, right = loss / counts["samples"], right / counts["samples"]
        said = {"loss": loss, "accuracy": right}
        share = jnp.sum(counted) / counts["samples"]
        said |= {name: share * value for name, value in run.losses.items()}
        total = loss + share * sum(run.losses.values()) if run.losses else loss
        report = Report(
            {name: Loss(jax.lax.stop_gradient(value), "samples") for name, value in said.items()},
            {"text": run.statistics} if run.statistics else {},
            {} if training else {"pictures": pictures, "texts": texts, "counted": counted},
        )
        return total, report

    def after_step(self, parameters: Tree, statistics: Tree) -> Tree:
        """The scale is bounded; the rest as the text's tower."""
        if self.config.largest_scale is not None:
            bounded = jnp.minimum(parameters["logit_scale"], float(np.log(self.config.largest_scale)))
            parameters = {**parameters, "logit_scale": bounded}
        if "text" in statistics:
            changed = self.text.after_step(parameters["text"], statistics["text"])
            parameters = {**parameters, "text": changed}
        return parameters

    def summary(self, statistics: Tree) -> Metrics:
        """As the text's tower."""
        return self.text.summary(statistics["text"]) if "text" in statistics else {}

    def scores(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """How often a picture's text is the nearest of a whole set, or among five, and a text's picture."""
        if not rows:
            return {}
        some = rows["counted"] > 0
        return retrieval_scores(rows["pictures"][some], rows["texts"][some], ("image", "text"))

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self.text.vocab_size

    @property
    def max_positions(self) -> int | None:
        """Tokens that a text may have; None where positions have no end."""
        return self.text.max_positions

    @property
    def has_pooler(self) -> bool:
        return True

    @property
    def is_pooled(self) -> bool:
        return True

    def encoded(self, batch: Batch) -> Float[Array, "batch residual_sequence embed"]:
        """The states of texts, `tokens`, behind the last norm of their tower."""
        return self.text.read(self._inputs(batch["tokens"], batch.get("segment_ids"))).x

    def pooled(
        self, states: Float[Array, "batch residual_sequence embed"], batch: Batch
    ) -> Float[Array, "batch latent"]:
        """As `text_vectors`."""
        return self._text_vectors(states, self._inputs(batch["tokens"], batch.get("segment_ids")))

    def _inputs(
        self, tokens: Int[Array, "batch sequence"], segment_ids: Int[Array, "batch sequence"] | None
    ) -> Inputs:
        """What the text's tower reads; with a `pad_token` the whole row, where it is said what is none."""
        pad = self.config.pad_token
        if pad is None or segment_ids is None:
            return Inputs(tokens, segment_ids=segment_ids)
        behind = (self.text.max_positions or tokens.shape[1]) - tokens.shape[1]
        filled = jnp.where(segment_ids > 0, tokens, pad)
        filled = jnp.pad(filled, ((0, 0), (0, behind)), constant_values=pad)
        return Inputs(shard(filled, "batch", "sequence"))

    def _text_vectors(
        self, hidden: Float[Array, "batch residual_sequence embed"], inputs: Inputs
    ) -> Float[Array, "batch latent"]:
        real = jnp.ones(inputs.tokens.shape, bool) if inputs.segment_ids is None else inputs.segment_ids > 0
        weights = self._weights(inputs.tokens, real)
        axes = ("batch", "residual_sequence")
        hidden = hidden * shard(weights, *axes)[..., None].astype(hidden.dtype)
        return self._vectors(jnp.sum(hidden, axis=1), self.text_projection)

    def _weights(
        self, tokens: Int[Array, "batch sequence"], real: Bool[Array, "batch sequence"]
    ) -> Float[Array, "batch sequence"]:
        """Of each token's state in what stands for its row."""
        config, place = self.config, jnp.arange(tokens.shape[1])
        if config.text_pooling == "mean":
            return real / jnp.maximum(jnp.sum(real, axis=1, keepdims=True), 1)
        if config.text_pooling == "first":
            at = jnp.argmax(real, axis=1)
        elif config.text_pooling == "last":
            at = jnp.max(jnp.where(real, place, 0), axis=1)
        elif config.end_token is None:
            at = jnp.argmax(jnp.where(real, tokens, -1), axis=1)
        else:
            at = jnp.argmax(real & (tokens == config.end_token), axis=1)
        return (place == at[:, None]).astype(jnp.float32)

    def _vectors(
        self, pooled: Float[Array, "batch embed"], projection: Linear | None
    ) -> Float[Array, "batch latent"]:
        pooled = shard(pooled, "batch", "latent")
        return unit(pooled if projection is None else projection(pooled[:, None])[:, 0])
