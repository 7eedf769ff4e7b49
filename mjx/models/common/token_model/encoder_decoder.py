"""An encoder, and a language model that looks at its states (Vaswani et al. 2017; Raffel et al. 2020)."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from mjx.batch import BatchArrays, check_arrays
from mjx.errors import InputError
from mjx.models.common.context import Memory, counted
from mjx.models.common.norm import Norm, NormConfig
from mjx.models.common.pattern import Lengths, SublayerConfig
from mjx.models.common.split import in_row_order, token_order
from mjx.models.common.stack import Caches, Stack
from mjx.models.common.stacked_model import run_stack
from mjx.models.common.token_model.embedding import Embedding
from mjx.models.common.token_model.inputs import Inputs, Targets
from mjx.models.common.token_model.language_model import LanguageModel, LanguageModelConfig
from mjx.models.common.token_model.model import Entrance
from mjx.models.family import Batch, Begun, Counts
from mjx.models.report import Report
from mjx.trees import Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(LanguageModelConfig):
    """What every encoder-decoder has around its sub-layers; both sides have one token table."""

    separate_positions: bool = False
    """The encoder has a table of positions of its own (BART); else both have one."""

    def encoder_sublayers(self) -> tuple[SublayerConfig, ...]:
        """The encoder's pattern; `sublayers` is the decoder's."""
        raise NotImplementedError(type(self))

    @property
    def encoder_norm(self) -> NormConfig | None:
        """Behind the encoder; None: its states are normed already."""
        return self.final_norm

    @functools.cached_property
    def encoder_pattern(self) -> tuple[SublayerConfig, ...]:
        """`encoder_sublayers`, written once."""
        return self.encoder_sublayers()

    @property
    def patterns(self) -> dict[str, tuple[SublayerConfig, ...]]:
        return {"encoder": self.encoder_pattern, self.stack_name: self.pattern}

    @property
    def encoder_output_std(self) -> float:
        """As `output_std`."""
        return self.init_std / math.sqrt(len(self.encoder_pattern))

    def build(self, rngs: nnx.Rngs) -> "EncoderDecoder":
        return EncoderDecoder(self, rngs=rngs)

    def lengths(self, arrays: BatchArrays) -> dict[str, Lengths]:
        memory, sequence = arrays["tokens"].shape[1], arrays["decoder_tokens"].shape[1]
        return {"encoder": Lengths(memory), self.stack_name: Lengths(sequence, memory)}

    def check_batch(self, arrays: BatchArrays) -> None:
        wanted = {"tokens": "int32", "decoder_tokens": "int32", "labels": "int32", "loss_mask": "float32"}
        optional = ("segment_ids", "decoder_segment_ids", "positions", "decoder_positions")
        check_arrays(arrays, wanted, dict.fromkeys(optional, "int32"))
        of_encoder = ("tokens", "segment_ids", "positions")
        self.check_rows(arrays, [name for name in of_encoder if name in arrays], chunked=False)
        self.check_rows(arrays, [name for name in arrays if name not in of_encoder])


class EncoderDecoder(LanguageModel):
    """Embedding; encoder and norm; decoder, final norm, head."""

    def __init__(self, config: EncoderDecoderConfig, *, rngs: nnx.Rngs):
        super().__init__(config, rngs=rngs)
        embed, std = config.hidden_size, config.init_std
        self.encoder_positions = (
            Embedding(config.max_positions, embed, axis="positions", std=std, rngs=rngs)
            if config.separate_positions and config.max_positions is not None
            else None
        )
        norm = config.embedding_norm
        self.encoder_embedding_norm = None if norm is None else Norm(norm, {"embed": embed})
        self.encoder = Stack(
            config.encoder_pattern,
            embed,
            remat=config.remat,
            std=std,
            output_std=config.encoder_output_std,
            rngs=rngs,
        )
        norm = config.encoder_norm
        self.encoder_norm = None if norm is None else Norm(norm, {"embed": embed})
        self.config: EncoderDecoderConfig = config

    def __call__(  # type: ignore[override]
        self,
        tokens: Int[Array, "batch memory"],
        decoder_tokens: Int[Array, "batch sequence"],
        *,
        positions: Int[Array, "batch memory"] | None = None,
        segment_ids: Int[Array, "batch memory"] | None = None,
        decoder_positions: Int[Array, "batch sequence"] | None = None,
        decoder_segment_ids: Int[Array, "batch sequence"] | None = None,
    ) -> Float[Array, "batch sequence vocab"]:
        """Logits of the decoder's next token, in float32."""
        memory, _, _ = self.encode(Inputs(tokens, positions, segment_ids))
        inputs = Inputs(decoder_tokens, decoder_positions, decoder_segment_ids, memory=memory)
        return self.logits(self.hidden_states(inputs))

    def encode(
        self, inputs: Inputs, key: Key[Array, ""] | None = None, so_far: Tree | None = None
    ) -> tuple[Memory, dict[str, Float[Array, ""]], Tree]:
        """The encoder's states, what its mixers add to the loss, and their statistics."""
        positions = self.encoder_positions if self.config.separate_positions else self.positions
        x, context = self.enter(inputs, key, Entrance(positions, self.encoder_embedding_norm))
        run = run_stack(self.encoder, "encoder", x, context, so_far=so_far)
        states = run.x if self.encoder_norm is None else self.encoder_norm(run.x)
        return Memory(states, context.segment_ids), dict(run.losses), run.statistics

    @property
    def has_pooler(self) -> bool:
        return False

    @property
    def is_pooled(self) -> bool:
        return False

    def encoded(self, batch: Batch) -> Float[Array, "batch residual_sequence embed"]:
        """The states of `tokens` that the decoder would look at."""
        inputs = Inputs(batch["tokens"], batch.get("positions"), batch.get("segment_ids"))
        order = token_order(inputs.tokens.shape[1])
        return in_row_order(order, self.encode(inputs)[0].states)

    def pooled(
        self, states: Float[Array, "batch residual_sequence embed"], batch: Batch
    ) -> Float[Array, "batch latent"]:
        raise NotImplementedError("an encoder-decoder has no pooler")

    def loss(
        self,
        batch: Batch,
        counts: Counts,
        *,
        key: Key[Array, ""] | None = None,
        so_far: Tree | None = None,
        training: bool = True,
    ) -> tuple[Float[Array, ""], Report]:
        """Cross-entropy of the decoder's unmasked tokens, and what the mixers of both sides add."""
        keys = (None, None) if key is None else jax.random.split(key)
        of_encoder = Inputs(
            batch["tokens"],
            batch.get("positions"),
            batch.get("segment_ids"),
            counted=_real(batch),
            training=training,
        )
        memory, losses, statistics = self.encode(of_encoder, keys[0], so_far)
        segments = batch.get("decoder_segment_ids")
        masked = {"loss_mask": batch["loss_mask"]} | ({} if segments is None else {"segment_ids": segments})
        inputs = Inputs(
            batch["decoder_tokens"],
            batch.get("decoder_positions"),
            segments,
            memory=memory,
            counted=counted(masked),
            training=training,
        )
        x, context = self.enter(inputs, keys[1])
        run = self.run(x, context, so_far=so_far)
        for name, value in run.losses.items():
            losses[name] = losses.get(name, 0.0) + value
        targets = Targets(batch["labels"], batch["loss_mask"])
        return self.left(run._replace(losses=losses, statistics=statistics | run.statistics), targets, counts)

    @property
    def answers(self) -> bool:
        return True

    def begun(self, prompts: Sequence[Sequence[int]], start: int | None) -> Begun:
        """The start token, for the decoder; the encoder reads the prompts."""
        if start is None or not 0 <= start < self.vocab_size:
            raise InputError(
                f"sampling.start_token = {'null' if start is None else start}: the encoder reads the prompt, "
                f"and the decoder begins with a token of its own; give its id, 0 to {self.vocab_size - 1}"
            )
        width = max(map(len, prompts), default=0)
        tokens, segments = np.zeros((2, len(prompts), width), np.int32)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)], segments[row, : len(prompt)] = prompt, 1
        return Begun("decoder_tokens", [[start]] * len(prompts), {"tokens": tokens, "segment_ids": segments})

    def begin(
        self, prompt: Batch, lengths: Int[Array, " batch"], slots: int
    ) -> tuple[Float[Array, "batch vocab"], Caches]:
        """Logits of the token after each row's `decoder_tokens`, which begin a text for what the encoder
        reads in `tokens` (padding by `segment_ids`)."""
        memory, _, _ = self.encode(Inputs(prompt["tokens"], segment_ids=prompt.get("segment_ids")))
        return self.begin_with(Inputs(prompt["decoder_tokens"], memory=memory), lengths, slots)

    def unrolled(self) -> "EncoderDecoder":
        model = super().unrolled()
        assert isinstance(model, EncoderDecoder)
        model.encoder = self.encoder.unrolled()
        return model


def _real(batch: Batch) -> Float[Array, "batch memory"]:
    """1 for the encoder's tokens that are no padding."""
    segments = batch.get("segment_ids")
    real = jnp.ones(batch["tokens"].shape, bool) if segments is None else segments > 0
    return real.astype(jnp.float32)
