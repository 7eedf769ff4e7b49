"""What a model of token ids is made of."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from mjx.batch import BatchArrays, check_arrays
from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.common.dropout import check_rate
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import Lengths
from mjx.models.common.stacked_config import StackedConfig
from mjx.models.common.token_model.embedding import padded_vocabulary
from mjx.models.common.token_model.head import HeadTransformConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenModelConfig(StackedConfig):
    """What every model of token ids has around its sub-layers."""

    training_choices: ClassVar[tuple[str, ...]] = (
        *("dtype", "dropout", "embedding_dropout", "init_std", "z_loss", "loss_chunks", "remat"),
        "vocab_divisor",
    )

    vocab_size: int
    """Token ids are below it."""
    max_positions: int | None = None
    """Rows of a table of learned positions; null for none (rotary positions are attention.rope)."""
    first_position: int = 0
    """The table's row of the first token (RoBERTa and BART leave two out)."""
    token_types: int = 0
    """Rows of a table of token types, such as which of two sentences a token is of; 0 for none."""
    embedding_scale: float = 1.0
    """Factor on the token embeddings, rounded to the compute dtype (Gemma: √hidden_size)."""
    embedding_norm: NormConfig | None = None
    """On the sum of the embeddings (BERT, BLOOM); null for none."""
    head_transform: HeadTransformConfig | None = None
    """A layer between the stack and the head (BERT); null for none."""
    head_bias: bool = False
    """Add a bias to the logits."""
    tie_embeddings: bool = False
    """Use the token table as the head."""
    embedding_dropout: float | None = None
    """On the embeddings; null: as dropout."""
    vocab_divisor: int = 128
    """The token table is padded to a multiple of this; padding never gets probability."""
    logit_scale: float = 1.0
    """Factor on the logits (μP)."""
    logit_soft_cap: float | None = None
    """Bound logits l to cap · tanh(l / cap), in the loss too (Gemma 2); null: do not."""
    z_loss: float = 0.0
    """Weight of log²Z, which keeps the logits from drifting (Chowdhery et al. 2022)."""
    loss_chunks: int = 1
    """Cut each row's tokens into this many chunks for the head, so that fewer logits exist at once."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("vocab_size", "vocab_divisor", "loss_chunks"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} = {getattr(self, name)} must be positive")
        if self.max_positions is not None and self.max_positions < 1:
            raise InputError(f"model.max_positions = {self.max_positions} must be positive, or null for none")
        for name in ("embedding_scale", "logit_scale"):
            check_scale(f"model.{name}", getattr(self, name))
        if self.logit_soft_cap is not None:
            check_scale("model.logit_soft_cap", self.logit_soft_cap, ", or null for none")
        if not self.z_loss >= 0:
            raise InputError(f"model.z_loss = {self.z_loss} must be positive, or 0 for none")
        if self.embedding_dropout is not None:
            check_rate("model.embedding_dropout", self.embedding_dropout)

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the token table."""
        return padded_vocabulary(self.vocab_size, self.vocab_divisor)

    @property
    def longest_row(self) -> int | None:
        """Tokens for which the table has positions; None without a table."""
        return None if self.max_positions is None else self.max_positions - self.first_position

    @property
    def vocabulary(self) -> int:
        return self.vocab_size

    def num_parameters(self) -> int:
        """Without the padding of the vocabulary."""
        tables = 1 if self.tie_embeddings else 2
        padding = self.padded_vocab_size - self.vocab_size
        return super().num_parameters() - padding * (tables * self.hidden_size + self.head_bias)

    def lengths(self, arrays: BatchArrays) -> dict[str, Lengths]:
        """Tokens of a row in each stack."""
        return {self.stack_name: Lengths(arrays["tokens"].shape[1])}

    def flops(self, arrays: BatchArrays) -> float:
        rows, tokens = arrays["tokens"].shape[0], self.lengths(arrays)[self.stack_name].sequence
        return super().flops(arrays) + 3 * rows * tokens * self.head_flops_per_token

    def flops_per_token(self, sequence: int) -> float:
        """Of forward and backward (3 × forward), multiply-adds as two, recomputation not counted."""
        lengths = Lengths(sequence)
        forward = sum(s.mixer.flops_per_token(self.hidden_size, lengths) for s in self.pattern)
        return 3 * (forward + self.head_flops_per_token)

    @property
    def head_flops_per_token(self) -> float:
        """Forward."""
        transform = 0 if self.head_transform is None else self.hidden_size
        return 2 * self.hidden_size * (self.vocab_size + transform)

    def check_batch(self, arrays: BatchArrays) -> None:
        check_arrays(
            arrays,
            {"tokens": "int32", "labels": "int32", "loss_mask": "float32"},
            {"positions": "int32", "segment_ids": "int32"},
        )
        self.check_rows(arrays, tuple(arrays))

    def check_rows(self, arrays: BatchArrays, names: Sequence[str], *, chunked: bool = True) -> None:
        """Raise `InputError` if these arrays are not of one shape, whose rows the model can take; `chunked`:
        and the head."""
        first, *others = names
        shape = arrays[first].shape
        for name in others:
            if arrays[name].shape != shape:
                raise InputError(
                    f"batch array '{name}' has the shape {arrays[name].shape}; that of '{first}' is {shape}"
                )
        _, sequence = shape
        positions = self.longest_row
        if positions is not None and sequence > positions:
            less = f" - first_position = {positions}" if self.first_position else ""
            raise InputError(
                f"data.sequence_length = {sequence} is beyond model.max_positions = {self.max_positions}"
                + less
            )
        if chunked and sequence % self.loss_chunks:
            raise InputError(
                f"model.loss_chunks = {self.loss_chunks} does not divide data.sequence_length = {sequence}"
            )
