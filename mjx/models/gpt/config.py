"""GPT: what a decoder-only language model is made of."""

import dataclasses
import functools
import itertools
import math
from typing import ClassVar, Literal

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.dropout import check_rate
from mjx.models.common.embedding import padded_vocabulary
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import SublayerConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.family import ModelConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPTConfig(ModelConfig):
    """A decoder: `num_layers` times attention and MLP between an embedding and a head.

    The defaults are GPT-2's kind of layer; `published.py` has the sizes of known models.
    """

    family: ClassVar[str] = "gpt"
    training_choices: ClassVar[tuple[str, ...]] = (
        *("dtype", "dropout", "embedding_dropout", "attention.dropout", "attention.implementation"),
        *("init_std", "z_loss", "loss_chunks", "remat", "vocab_divisor"),
    )

    num_layers: int
    """Pairs of an attention and an MLP sub-layer."""
    hidden_size: int
    """Features of the residual stream."""
    attention: AttentionConfig
    """Of every layer; `window_pattern` and `rope_pattern` take parts of it away from some."""
    mlp: MLPConfig
    """Of every layer."""
    norm: NormConfig = NormConfig()
    """Of every sub-layer, and before the head."""
    norm_placement: Literal["input", "output", "both"] = "input"
    """input: x + f(norm(x)). output: x + norm(f(x)), as OLMo 2. both: a norm on either side, as Gemma 2."""
    parallel_residual: bool = False
    """The MLP reads what attention reads, x + attention(norm(x)) + mlp(norm'(x)), as GPT-J and GPT-NeoX."""
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
    window_pattern: tuple[bool, ...] = (True,)
    """Which layers keep attention.window, repeated over the depth: `[true, false]` is every other one."""
    rope_pattern: tuple[bool, ...] = (True,)
    """Which layers keep their rotation, repeated over the depth."""
    window_rope: RoPEConfig | None = None
    """Rotation of the layers that keep attention.window (Gemma 3); null: attention.rope, as in the others."""
    vocab_divisor: int = 128
    """The token table is padded to a multiple of this; padding never gets probability."""
    init_std: float = 0.02
    """Standard deviation of the initial weights; projections back into the residual stream get
    init_std / √(2 num_layers) (Radford et al. 2019)."""
    logit_soft_cap: float | None = None
    """Bound logits l to cap · tanh(l / cap), in the loss too (Gemma 2); null: do not."""
    z_loss: float = 0.0
    """Weight of log²Z, which keeps the logits from drifting (Chowdhery et al. 2022)."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_layers", "hidden_size", "vocab_divisor"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} = {getattr(self, name)} must be positive")
        for name in ("window_pattern", "rope_pattern"):
            if not getattr(self, name):
                raise InputError(f"model.{name} is empty; it needs at least one true or false")
        if self.max_positions is not None and self.max_positions < 1:
            raise InputError(f"model.max_positions = {self.max_positions} must be positive, or null for none")
        for name in ("init_std", "embedding_scale"):
            if not getattr(self, name) > 0:
                raise InputError(f"model.{name} = {getattr(self, name)} must be positive")
        if self.logit_soft_cap is not None and not self.logit_soft_cap > 0:
            raise InputError(
                f"model.logit_soft_cap = {self.logit_soft_cap} must be positive, or null for none"
            )
        if not self.z_loss >= 0:
            raise InputError(f"model.z_loss = {self.z_loss} must be positive, or 0 for none")
        check_rate("model.dropout", self.dropout)
        if self.embedding_dropout is not None:
            check_rate("model.embedding_dropout", self.embedding_dropout)
        if self.window_rope is not None and self.attention.window is None:
            raise InputError("model.window_rope needs attention.window, which is null")
        self.sublayers()  # whose configs check themselves

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the token table."""
        return padded_vocabulary(self.vocab_size, self.vocab_divisor)

    def sublayers(self) -> tuple[SublayerConfig, ...]:
        """The pattern of the stack, in order."""
        attention = self.attention.resolve(self.hidden_size)

        def of_layer(layer: int) -> AttentionConfig:
            window = attention.window if _at(self.window_pattern, layer) else None
            rope = attention.rope if window is None or self.window_rope is None else self.window_rope
            return dataclasses.replace(
                attention, window=window, rope=rope if _at(self.rope_pattern, layer) else None
            )

        sublayer = functools.partial(
            SublayerConfig,
            norm=None if self.norm_placement == "output" else self.norm,
            output_norm=None if self.norm_placement == "input" else self.norm,
            dropout=self.dropout,
        )
        mlp = sublayer(mixer=self.mlp, parallel=self.parallel_residual)
        layers = ((sublayer(mixer=of_layer(layer)), mlp) for layer in range(self.num_layers))
        return tuple(itertools.chain.from_iterable(layers))

    def num_parameters(self) -> int:
        """Trained numbers, without the padding of the vocabulary."""
        tables = self.vocab_size * self.hidden_size * (1 if self.tie_embeddings else 2)
        tables += (self.max_positions or 0) * self.hidden_size
        blocks = sum(sublayer.num_parameters(self.hidden_size) for sublayer in self.sublayers())
        return tables + blocks + self.norm.num_parameters(self.hidden_size)

    def flops_per_token(self, sequence: int) -> float:
        """Of forward and backward (3 × forward), multiply-adds as two, recomputation not counted."""
        forward = sum(s.mixer.flops_per_token(self.hidden_size, sequence) for s in self.sublayers())
        return 3 * (forward + 2 * self.hidden_size * self.vocab_size)

    def check_sequence(self, sequence: int) -> None:
        """Raise if rows of this length do not fit the model."""
        if self.max_positions is not None and sequence > self.max_positions:
            raise InputError(
                f"data.sequence_length = {sequence} is beyond model.max_positions = {self.max_positions}"
            )
        if sequence % self.loss_chunks:
            raise InputError(
                f"model.loss_chunks = {self.loss_chunks} does not divide data.sequence_length = {sequence}"
            )

    def build(self, rngs):
        from mjx.models.gpt.model import GPT

        return GPT(self, rngs=rngs)

    @property
    def output_std(self) -> float:
        """Initial standard deviation of projections into the residual stream."""
        return self.init_std / math.sqrt(2 * self.num_layers)


def _at(pattern: tuple[bool, ...], layer: int) -> bool:
    return pattern[layer % len(pattern)]
