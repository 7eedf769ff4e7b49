"""Rows of tokens for a causal language model: windows of the token stream, or whole documents, packed."""

import dataclasses
from typing import ClassVar

from mjx.batch import BatchArrays, token_batch
from mjx.data.dataset import Dataset
from mjx.data.gpt.dataset import GPTDataset
from mjx.data.gpt.index import load_gpt_index
from mjx.data.gpt.packing import PackedDataset, load_packed_index
from mjx.data.indexed import IndexedDataset
from mjx.data.text import TextConfig
from mjx.data.tokenizers import Tokenizer
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPTDatasetConfig(TextConfig):
    """Megatron's GPTDataset, with its masks; or packed rows."""

    kind: ClassVar[str] = "gpt"

    sequence_length: int = 1024
    """Tokens in a row."""
    document_mask: bool = False
    """Documents in a row do not see each other (gives segment_ids). Megatron: --reset-attention-mask."""
    reset_positions: bool = False
    """Positions start at 0 in every document. Megatron: --reset-position-ids."""
    mask_eod_loss: bool = False
    """Do not learn what follows the end of a document. Megatron: --eod-mask-loss."""
    packing: bool = False
    """Rows of whole documents, filled up with padding, instead of windows of the token stream; each document
    is masked apart and has positions of its own."""

    def arrays(self, rows: int) -> BatchArrays:
        positions = ("positions",) if self.reset_positions or self.packing else ()
        segments = ("segment_ids",) if self.document_mask or self.packing else ()
        return token_batch(rows, self.sequence_length, (*positions, *segments))

    def samples(
        self,
        source: IndexedDataset,
        documents: range,
        num_samples: int | None,
        *,
        tokenizer: Tokenizer | None,
        vocab_size: int,
    ) -> Dataset:
        length = self.sequence_length
        choices = {"sequence_length": length, "num_samples": num_samples, "seed": self.seed}
        if self.packing:
            packed = load_packed_index(source, documents, self.cache_dir, **choices)
            return PackedDataset(source, packed, sequence_length=length, vocab_size=vocab_size)
        return GPTDataset(
            source,
            load_gpt_index(source, documents, self.cache_dir, **choices),
            sequence_length=length,
            vocab_size=vocab_size,
            eod_id=None if tokenizer is None else tokenizer.eod_id,
            document_mask=self.document_mask,
            reset_positions=self.reset_positions,
            mask_eod_loss=self.mask_eod_loss,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sequence_length < 2:
            raise InputError(f"sequence_length = {self.sequence_length} must be at least 2.")
        masks = [
            name for name in ("document_mask", "reset_positions", "mask_eod_loss") if getattr(self, name)
        ]
        if masks and self.packing:
            raise InputError(
                f"{masks[0]} = true is for windows of the token stream; packing = true implies it."
            )
