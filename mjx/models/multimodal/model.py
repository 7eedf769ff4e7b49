"""A language model that sees: pictures through an encoder and a projector to the places of their tokens."""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.common.parameter import parameter
from mjx.models.common.pictures import ImageInputs, View, parts_of
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.common.token_model.model import inputs_of
from mjx.models.family import Batch, Begun, Counts, Metrics
from mjx.models.multimodal.config import MultimodalConfig
from mjx.models.multimodal.layout import layout_of
from mjx.models.multimodal.projector import Projector
from mjx.models.multimodal.rows import seen_arrays
from mjx.models.report import Report
from mjx.sharding import inside, shard
from mjx.trees import Tree


class Seen(NamedTuple):
    """Embeddings that are made of pictures, and the places in the text that they take."""

    embeddings: Float[Array, "batch made embed"]
    at: Int[Array, "batch made"]


class SeenCaches(NamedTuple):
    """Caches of the language model, and what the rest of a prompt may still look at."""

    language: Any
    seen: Seen | None
    positions: Int[Array, "batch prompt axes"] | None = None
    """Of the whole prompts; None: counted."""
    ahead: Int[Array, " batch"] | None = None
    """What the position of a token behind the prompt is more than the number of tokens in front of it."""


class Multimodal(nnx.Module):
    """Encoder, projector, language model: `mjx.models.family.Generates`."""

    def __init__(self, config: MultimodalConfig, *, rngs: nnx.Rngs):
        config = config.settled
        self.vision = config.vision.build(rngs)
        self.projector = Projector(
            config.projector,
            config.vision.hidden_size,
            config.language.hidden_size,
            merged=config.merged,
            std=config.language.init_std,
            rngs=rngs,
        )
        embed = config.language.hidden_size
        newline = jax.random.normal(rngs.params(), (embed,), jnp.float32) / math.sqrt(embed)
        self.newline = parameter(newline, "embed") if config.pinpoints else None
        self.language = config.language.build(rngs)
        self.config = config

    def __call__(
        self,
        tokens: Int[Array, "batch sequence"],
        *,
        positions: Int[Array, "batch sequence axes"] | None = None,
        **seen: Array,
    ) -> Float[Array, "batch sequence vocab"]:
        """Logits of the next token, in float32, of rows in which pictures stand (`SEEN`, `image_at`)."""
        inputs = self._looking(Inputs(tokens, positions), seen)
        return self.language.logits(self.language.hidden_states(inputs))

    def see(self, batch: Batch, key: Key[Array, ""] | None = None, *, training: bool = False) -> Seen | None:
        """What the pictures of a batch become; None where it has none."""
        if "patches" not in batch:
            return None
        config = self.config
        inputs = ImageInputs(
            batch["patches"], batch.get("grid"), batch.get("patch_segment_ids"), training=training
        )
        with inside("vision"):
            features = self.vision(inputs, key, layers=config.vision_layers)
        seen = Seen(self.projector(features.astype(config.language.compute_dtype)), batch["image_at"])
        if self.newline is None or "newline_at" not in batch:
            return seen
        at = batch["newline_at"]
        lines = jnp.broadcast_to(
            self.newline[...].astype(seen.embeddings.dtype), (*at.shape, config.language.hidden_size)
        )
        return Seen(
            jnp.concatenate([seen.embeddings, shard(lines, "batch", None, "embed")], axis=1),
            jnp.concatenate([seen.at, at], axis=1),
        )

    @property
    def image_token(self) -> int:
        """The id that stands in the places of features."""
        return self.config.image_token

    def places(self, view: View) -> tuple[int, ...]:
        """How many tokens each part of a picture takes, or all that are one grid."""
        return layout_of(self.config, view).counts

    def seeing(
        self, tokens: Int[np.ndarray, "batch sequence"], pictures: Sequence[Sequence[View]]
    ) -> dict[str, np.ndarray]:
        """`seen_arrays` of this model, with positions along several axes where it has them."""
        if self.config.axes > 1:
            wholes = [[part for view in row for part in parts_of(view)] for row in pictures]
            return self.config.sight.seen(tokens, np.ones_like(tokens), wholes, None)
        return seen_arrays(self.config, tokens, pictures)

    def counts(self, batch: Batch) -> dict[str, Float[Array, ""]]:
        """Those of the language model."""
        return self.language.counts(batch)

    def loss(
        self,
        batch: Batch,
        counts: Counts,
        *,
        key: Key[Array, ""] | None = None,
        so_far: Tree | None = None,
        training: bool = True,
    ) -> tuple[Float[Array, ""], Report]:
        """That of the language model, which has read what it has seen."""
        own, other = (None, None) if key is None else jax.random.split(key)
        seen = self.see(batch, other, training=training)
        inputs = _with(inputs_of(batch, training=training), seen)
        before = (so_far or {}).get("language")
        total, report = self.language.loss_of(inputs, batch, counts, key=own, so_far=before)
        statistics = {"language": report.statistics} if report.statistics else {}
        return total, dataclasses.replace(report, statistics=statistics)

    def after_step(self, parameters: Tree, statistics: Tree) -> Tree:
        """As the language model's."""
        if "language" not in statistics:
            return parameters
        changed = self.language.after_step(parameters["language"], statistics["language"])
        return {**parameters, "language": changed}

    def summary(self, statistics: Tree) -> Metrics:
        """As the language model's."""
        return self.language.summary(statistics["language"]) if "language" in statistics else {}

    def scores(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """As the language model's."""
        return self.language.scores(rows)

    def _looking(self, inputs: Inputs, batch: Batch) -> Inputs:
        return _with(inputs, self.see(batch))

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self.language.vocab_size

    @property
    def max_positions(self) -> int | None:
        """Tokens that a row may have; None where positions have no end."""
        return self.language.max_positions

    @property
    def caches_grow(self) -> bool:
        """Whether some layer of the language model keeps something of every token."""
        return self.language.caches_grow

    @property
    def answers(self) -> bool:
        return False

    def begun(self, prompts: Sequence[Sequence[int]], start: int | None) -> Begun:
        """The prompts themselves, which the text continues."""
        return Begun("tokens", prompts)

    def unrolled(self) -> "Multimodal":
        """The same model with every layer of the language model in arrays of its own, for decoding."""
        model = copy.copy(self)
        model.language = self.language.unrolled()
        return model

    def begin(
        self, prompt: Batch, lengths: Int[Array, " batch"], slots: int
    ) -> tuple[Float[Array, "batch vocab"], SeenCaches]:
        """Logits behind each row's prompt (`tokens`, in which pictures may stand), and the caches with it."""
        seen = self.see(prompt)
        tokens, positions = prompt["tokens"], prompt.get("positions")
        own = None if positions is None else positions[:, : tokens.shape[1]]
        inputs = _with(Inputs(tokens, own), seen)
        logits, caches = self.language.begin_with(inputs, lengths, slots)
        if positions is None:
            return logits, SeenCaches(caches, seen)
        real = jnp.arange(positions.shape[1])[None, :, None] < lengths[:, None, None]
        last = jnp.max(jnp.where(real, positions, -1), axis=(1, 2))
        return logits, SeenCaches(caches, seen, positions, last + 1 - lengths)

    def read_on(
        self,
        tokens: Int[Array, "batch new"],
        caches: SeenCaches,
        offset: Int[Array, " batch"],
        lengths: Int[Array, " batch"],
    ) -> tuple[Float[Array, "batch vocab"], SeenCaches]:
        """`begin`, for the tokens of the prompts behind those that the caches hold."""
        seen = caches.seen
        if seen is not None:  # what stands in front takes no place any more
            at = seen.at - offset[:, None]
            seen = seen._replace(at=jnp.where(at < 0, tokens.shape[1], at))
        positions = caches.positions
        if positions is not None:
            at = offset[:, None] + jnp.arange(tokens.shape[1])
            positions = jnp.take_along_axis(positions, at[..., None], axis=1, mode="clip")
        inputs = _with(Inputs(tokens, positions), seen)
        logits, updated = self.language.read_on_with(inputs, caches.language, offset, lengths)
        return logits, caches._replace(language=updated)

    def next(
        self, tokens: Int[Array, "batch new"], caches: SeenCaches, offset: Int[Array, " batch"]
    ) -> tuple[Float[Array, "batch new vocab"], SeenCaches]:
        """As the language model's."""
        positions = None
        if caches.ahead is not None:
            positions = (offset + caches.ahead)[:, None] + jnp.arange(tokens.shape[1])
        logits, updated = self.language.next_with(Inputs(tokens, positions), caches.language, offset)
        return logits, caches._replace(language=updated)

    def rows_of(self, caches: SeenCaches, rows: Int[Array, " chosen"]) -> SeenCaches:
        """The caches of these rows, in this order."""
        rest = jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), caches._replace(language=None))
        return rest._replace(language=self.language.rows_of(caches.language, rows))


def _with(inputs: Inputs, seen: Seen | None) -> Inputs:
    return inputs if seen is None else inputs._replace(embeddings=seen.embeddings, at=seen.at)
