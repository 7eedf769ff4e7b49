"""GPT: a decoder-only language model (Radford et al. 2019; Touvron et al. 2023)."""

import copy

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.models.common.context import Context
from mjx.models.common.cross_entropy import language_model_loss
from mjx.models.common.dropout import dropout
from mjx.models.common.embedding import Embedding
from mjx.models.common.norm import Norm
from mjx.models.common.stack import Caches, Stack
from mjx.models.family import Batch, Metrics
from mjx.models.gpt.config import GPTConfig
from mjx.sharding import relayout, shard


class GPT(nnx.Module):
    """Embedding, decoder, final norm, head."""

    def __init__(self, config: GPTConfig, *, rngs: nnx.Rngs):
        embed, vocab, std = config.hidden_size, config.padded_vocab_size, config.init_std
        self.embedding = Embedding(vocab, embed, axis="vocab", std=std, rngs=rngs)
        self.positions = (
            Embedding(config.max_positions, embed, axis="positions", std=std, rngs=rngs)
            if config.max_positions is not None
            else None
        )
        self.decoder = Stack(
            config.sublayers(), embed, remat=config.remat, std=std, output_std=config.output_std, rngs=rngs
        )
        self.final_norm = Norm(config.norm, {"embed": embed})
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
        hidden, _ = self.hidden_states(tokens, positions=positions, segment_ids=segment_ids)
        return self.logits(hidden)

    def loss(
        self, batch: Batch, dropout_key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, ""], Metrics]:
        """Cross-entropy summed over unmasked tokens, and the sums that are reported."""
        hidden, _ = self.hidden_states(
            batch["tokens"],
            positions=batch.get("positions"),
            segment_ids=batch.get("segment_ids"),
            dropout_key=dropout_key,
        )
        total, sums = language_model_loss(
            relayout(hidden, ("batch", "residual_sequence", "embed"), ("batch", "sequence", "embed")),
            self.output_weight,
            batch["labels"],
            batch["loss_mask"].astype(jnp.float32),
            self.config.vocab_size,
            self.config.z_loss,
            self.config.loss_chunks,
            self.config.logit_soft_cap,
        )
        metrics = {"loss": sums.cross_entropy}
        if self.config.z_loss:
            metrics["z_loss"] = sums.z_loss
        return total, metrics

    def hidden_states(
        self,
        tokens: Int[Array, "batch sequence"],
        *,
        positions: Int[Array, "batch sequence"] | None = None,
        segment_ids: Int[Array, "batch sequence"] | None = None,
        caches: Caches | None = None,
        cache_offset: Int[Array, " batch"] | None = None,
        dropout_key: Key[Array, ""] | None = None,
    ) -> tuple[Float[Array, "batch residual_sequence embed"], Caches | None]:
        """The residual stream after the final norm; with `caches`, the tokens continue what those hold."""
        config = self.config
        if positions is None:
            start = jnp.zeros((1, 1), jnp.int32) if cache_offset is None else cache_offset[:, None]
            positions = start + jnp.arange(tokens.shape[1])
        context = Context(segment_ids=segment_ids, cache_offset=cache_offset, dropout_key=dropout_key)
        context, embedding_key = context.split_dropout()
        context = context.with_rotary(config.sublayers(), positions)

        x = self.embedding(tokens, config.compute_dtype)
        if config.embedding_scale != 1:
            x = x * jnp.asarray(config.embedding_scale, x.dtype)
        if self.positions is not None:
            x = x + self.positions(positions, x.dtype)
        rate = config.dropout if config.embedding_dropout is None else config.embedding_dropout
        x = shard(dropout(x, rate, embedding_key), "batch", "residual_sequence", "embed")
        x, caches = self.decoder(x, context, caches)
        return self.final_norm(x), caches

    def logits(self, hidden: Float[Array, "batch sequence embed"]) -> Float[Array, "batch sequence vocab"]:
        """The head, for generation and evaluation; training's loss never makes these whole."""
        weight = self.output_weight.astype(hidden.dtype)
        logits = jnp.einsum("bse,ve->bsv", hidden, weight, preferred_element_type=jnp.float32)
        if cap := self.config.logit_soft_cap:
            logits = cap * jnp.tanh(logits / cap)
        return shard(logits, "batch", "sequence", "vocab")[..., : self.config.vocab_size]

    def unrolled(self) -> "GPT":
        """The same model with every layer's parameters in arrays of their own, for decoding."""
        model = copy.copy(self)
        model.decoder = self.decoder.unrolled()
        return model

    def init_caches(self, batch: int, slots: int) -> Caches:
        """Empty key/value caches for `slots` tokens a row."""
        return self.decoder.init_caches(batch, slots, self.config.compute_dtype)

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""
        return self.config.vocab_size

    @property
    def max_positions(self) -> int | None:
        """Tokens that a row may have; None without learned positions."""
        return self.config.max_positions

    @property
    def output_weight(self) -> Float[Array, "vocab embed"]:
        """The head's table; the token table itself where they are tied."""
        return (self.embedding if self.head is None else self.head).weight[...]
