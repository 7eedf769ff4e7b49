"""A vision transformer: patches and learned tokens, the stack, and what is said of a whole picture."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from mjx.models.common.classes import TellsClasses, held_against
from mjx.models.common.context import Context
from mjx.models.common.dropout import dropout
from mjx.models.common.linear import Linear
from mjx.models.common.norm import Norm
from mjx.models.common.parameter import parameter
from mjx.models.common.pictures import ImageInputs, pictures, whole_grid
from mjx.models.common.split import in_order, in_row_order, token_order
from mjx.models.common.stacked_model import StackedModel
from mjx.models.family import Batch, Counts
from mjx.models.report import Report
from mjx.models.vision.config import VisionConfig
from mjx.models.vision.pooling import AttentionPooling
from mjx.models.vision.positions import PositionTable, cropped_weights, weights
from mjx.sharding import relayout, shard
from mjx.trees import Tree


class VisionTransformer(TellsClasses, StackedModel):
    """Patch embedding, learned tokens and positions, encoder, final norm, pooling, heads."""

    def __init__(self, config: VisionConfig, *, rngs: nnx.Rngs):
        embed, std = config.hidden_size, config.init_std
        pixels = {"pixels": config.patch_features}
        self.patches = Linear(pixels, {"embed": embed}, bias=config.patch_bias, std=std, rngs=rngs)

        def table(rows: int) -> nnx.Param | None:
            drawn = std * jax.random.normal(rngs.params(), (rows, embed), jnp.float32)
            return parameter(drawn, "positions", "embed") if rows else None

        self.class_tokens, self.registers = table(config.class_tokens), table(config.registers)
        mask = std * jax.random.normal(rngs.params(), (embed,), jnp.float32)
        self.mask_token = parameter(mask, "embed") if config.mask_token else None
        size = config.position_grid
        self.positions = None if size is None else table(config.class_positions + size[0] * size[1])
        norm = config.embedding_norm
        self.embedding_norm = None if norm is None else Norm(norm, {"embed": embed})
        self._stack(config, rngs)
        self.final_norm = None if config.last_norm is None else Norm(config.norm, {"embed": embed})
        self.pooling = AttentionPooling(config, rngs=rngs) if config.pooling == "attention" else None
        pooled = {"latent": config.pooled_features}
        self.pooler = (
            Linear(pooled, {"latent": embed}, bias=True, std=std, rngs=rngs) if config.pooler else None
        )
        self.classifier = (
            Linear(
                {"latent": embed} if config.pooler else pooled,
                {"classes": config.classes},
                bias=True,
                std=std,
                rngs=rngs,
            )
            if config.classes is not None
            else None
        )
        self.config: VisionConfig = config

    def __call__(
        self, inputs: ImageInputs, key: Key[Array, ""] | None = None, layers: int | None = None
    ) -> Float[Array, "batch sequence embed"]:
        """The tokens behind the last layer, normed where all of them are; or, as they are, behind so many
        layers."""
        x, context = self.enter(inputs, key)
        if layers is None:
            x = self._normed(self.run(x, context).x)
        else:
            x = self.stack.front(layers * len(self.config.pattern) // self.config.num_layers)(x, context).x
        return in_row_order(token_order(inputs.patches.shape[1]), x)

    def pictures(
        self,
        images: Float[Array, "batch channels height width"],
        masked: Bool[Array, "batch patches"] | None = None,
    ) -> ImageInputs:
        """Pictures of one size as what enters the model; `masked` patches are hidden."""
        return pictures(
            images, self.config.patch_size, self.config.learned_tokens, masked, self.config.frames
        )

    def inputs(self, batch: Batch) -> ImageInputs:
        """What enters of a batch: `images`, each a row, or `patches`, with `grid` and `segment_ids` where
        there are any."""
        if "images" in batch:
            return self.pictures(batch["images"])
        return ImageInputs(batch["patches"], batch.get("grid"), batch.get("segment_ids"))

    def enter(
        self, inputs: ImageInputs, key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "batch residual_sequence embed"], Context]:
        """The residual stream in front of the stack, and what its layers read besides."""
        config = self.config
        order = token_order(inputs.patches.shape[1])
        grid = self._grid(inputs)
        patches, grid = in_order(order, inputs.patches), in_order(order, grid)
        segments = inputs.segment_ids
        context = Context(
            positions=jnp.maximum(jnp.asarray(grid)[..., :2], 0),
            window_ids=None if config.window is None else in_order(order, self._windows(inputs)),
            segment_ids=None if segments is None else in_order(order, segments),
            training=inputs.training,
            dropout_key=key,
        )
        context, embedding_key = context.split_dropout()
        x = self.patches(patches.astype(config.compute_dtype))
        if inputs.masked is not None and self.mask_token is not None:
            hidden = in_order(order, inputs.masked)[..., None]
            x = jnp.where(hidden, self.mask_token[...].astype(x.dtype), x)
        tables = [table[...] for table in (self.class_tokens, self.registers) if table is not None]
        if tables:
            learned = -1 - grid[..., 0]
            found = jnp.take(jnp.concatenate(tables), jnp.maximum(learned, 0), axis=0, mode="clip")
            x = jnp.where((learned >= 0)[..., None], found.astype(x.dtype), x)
        if self.positions is not None:
            drawn = embedding_key if inputs.training else None
            x = x + self._positions(grid, context.segment_ids, drawn).astype(x.dtype)
        x = x if self.embedding_norm is None else self.embedding_norm(x)
        return shard(
            dropout(x, config.dropout, embedding_key), "batch", "residual_sequence", "embed"
        ), context

    def pooled(
        self, hidden: Float[Array, "batch sequence embed"], inputs: ImageInputs
    ) -> Float[Array, "batch latent"]:
        """What is said of each row's picture, from the tokens behind the last layer."""
        config = self.config
        hidden = relayout(hidden, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed"))
        grid = jnp.asarray(self._grid(inputs))
        real = jnp.ones(grid.shape[:2], bool) if inputs.segment_ids is None else inputs.segment_ids > 0
        if config.last_norm == "pooled":
            hidden = hidden[:, :1] if config.pooling == "class" else hidden
            assert self.final_norm is not None
            hidden = self.final_norm(hidden)
        if self.pooling is not None:
            return self._layered(self.pooling(hidden, real))
        if config.pooling == "class":
            return self._layered(hidden[:, 0])
        patches = real & (grid[..., 0] >= 0)
        mean = _mean(hidden, patches)
        return self._layered(mean if config.pooling == "mean" else jnp.concatenate([hidden[:, 0], mean], -1))

    def counts(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """`samples`: the pictures that count."""
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
        """Of the pictures' labels: cross-entropy and `accuracy`, or of a number the squared error."""
        inputs = self.inputs(batch)._replace(training=training)
        x, context = self.enter(inputs, key)
        run = self.run(x, context, so_far=so_far)
        _, last = context.split_dropout()
        hidden = in_row_order(token_order(inputs.patches.shape[1]), self._normed(run.x))
        pooled = dropout(self.pooled(hidden, inputs), self.config.dropout, last)
        told = held_against(self.class_logits(pooled), batch["labels"], batch["loss_mask"], counts["samples"])
        return told.loss, Report(told.losses, run.statistics, {} if training else told.rows)

    def picture_vectors(
        self, images: Float[Array, "batch channels height width"]
    ) -> Float[Array, "batch latent"]:
        """What is said of each picture, in float32."""
        inputs = self.pictures(images)
        return self.pooled(self(inputs), inputs).astype(jnp.float32)

    def classified(self, batch: Batch) -> Float[Array, "batch classes"]:
        """Logits of each picture's classes, or its number, in float32."""
        inputs = self.inputs(batch)
        return self.class_logits(self.pooled(self(inputs), inputs))

    def class_logits(self, pooled: Float[Array, "batch latent"]) -> Float[Array, "batch classes"]:
        """Of every class; in float32."""
        assert self.classifier is not None
        return self.classifier(pooled[:, None])[:, 0].astype(jnp.float32)

    def _layered(self, pooled: Float[Array, "batch latent"]) -> Float[Array, "batch latent"]:
        return pooled if self.pooler is None else jnp.tanh(self.pooler(pooled[:, None])[:, 0])

    def _grid(self, inputs: ImageInputs) -> Any:
        """Where the tokens are in their pictures; known when it is compiled, where batches do not say it."""
        if inputs.grid is not None:
            return inputs.grid
        return whole_grid(*self.config.grid, self.config.learned_tokens)

    def _windows(self, inputs: ImageInputs) -> Int[Array, "batch sequence"]:
        """A number for each window of each picture, from 1; 0 is padding."""
        size, (batch, sequence) = self.config.window, inputs.patches.shape[:2]
        assert size is not None
        grid = jnp.asarray(self._grid(inputs))
        across = -(-grid[..., 3] // size)
        window = grid[..., 0] // size * across + grid[..., 1] // size
        segments = inputs.segment_ids
        if segments is None:
            return jnp.broadcast_to(1 + window, (batch, sequence))
        # A picture has at most as many windows as a row has patches.
        return jnp.where(segments > 0, 1 + (segments - 1) * sequence + window, 0)

    def _positions(
        self,
        grid: Int[Array, "#batch sequence grid"],
        segment_ids: Int[Array, "batch sequence"] | None,
        key: Key[Array, ""] | None,
    ) -> Float[Array, "#batch sequence embed"]:
        """The learned positions of the tokens: zeros for learned tokens that have none. With a `key`, such as
        it draws them for training."""
        config = self.config
        assert self.positions is not None
        assert config.position_grid is not None
        values, classes = self.positions[...], config.class_positions
        known = PositionTable(*config.position_grid, config.position_resizing, config.position_view)
        place, size = grid[..., :2], grid[..., 2:]
        of_patch = place[..., 0] >= 0
        crops = None if key is None or not config.position_crops else key
        as_known = isinstance(grid, np.ndarray) and np.all(size == np.array(config.position_grid))
        if as_known and crops is None:
            at = classes + place[..., 0] * known.columns + place[..., 1]
            found = jnp.take(values, np.where(of_patch, at, 0), axis=0)
        else:
            where = jnp.asarray(grid)
            of_rows, of_columns = (
                weights(known, where)
                if crops is None
                else cropped_weights(known, where, segment_ids, jax.random.fold_in(crops, 1))
            )
            each = of_rows[..., :, None] * of_columns[..., None, :]
            found = each.reshape(*each.shape[:2], known.rows * known.columns) @ values[classes:]
        if not config.learned_tokens:
            return found
        learned = -1 - place[..., 0]
        own = jnp.take(values, jnp.clip(learned, 0, max(classes - 1, 0)), axis=0)
        own = jnp.where(jnp.asarray(learned < classes)[..., None], own, 0.0)
        return jnp.where(jnp.asarray(of_patch)[..., None], found, own)

    def _normed(self, x: Any) -> Any:
        return self.final_norm(x) if self.final_norm is not None and self.config.last_norm == "tokens" else x


def _mean(
    x: Float[Array, "batch sequence embed"], counted: Bool[Array, "#batch sequence"]
) -> Float[Array, "batch embed"]:
    """Of the tokens that are counted; summed in float32."""
    share = counted / jnp.maximum(jnp.sum(counted, axis=1, keepdims=True), 1)
    return jnp.einsum("bse,bs->be", x.astype(jnp.float32), jnp.broadcast_to(share, x.shape[:2])).astype(
        x.dtype
    )
