"""Rows for an encoder-decoder that writes the spans that are hidden from its encoder: T5's."""

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int64

from mjx.batch import BatchArrays, coded_batch
from mjx.data.dataset import Batch, Dataset
from mjx.data.indexed import IndexedDataset
from mjx.data.masked.config import MaskedConfig, pieces
from mjx.data.masked.masking import Masker
from mjx.data.masked.sentences import Sentences
from mjx.data.tokenizers import Tokenizer
from mjx.data.tokenizers.special import SpecialToken, SpecialTokens
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedSpansConfig(MaskedConfig):
    """Megatron's T5MaskedWordPieceDataset: a sentinel stands for each span in the encoder's row, and before
    it in the decoder's.

    Where more spans are drawn than there are sentinels, or than the decoder's row has room for (Megatron
    stops there), those at the end of the row stay visible.
    """

    kind: ClassVar[str] = "t5"

    decoder_length: int = 128
    """Tokens in a row of the decoder. Megatron: --decoder-seq-length."""
    max_ngram: int = 10
    """Words that are hidden together, at most."""
    geometric: bool = True
    """Draw from a geometric distribution (p = 0.2) how many words are hidden together."""
    start: SpecialToken = None
    """What the decoder begins with: a token or its id; null: the tokenizer's bos or [BOS], else its pad."""
    eos: SpecialToken = None
    """What the decoder ends with: a token or its id; null: [EOS], or the tokenizer's eos."""
    sentinels: tuple[int | str, ...] = ()
    """What stands for the spans, in order: tokens or their ids; []: <extra_id_0>, <extra_id_1>, …"""

    def arrays(self, rows: int) -> BatchArrays:
        return coded_batch(rows, self.sequence_length, self.decoder_length)

    def start_token(self, tokenizer: Tokenizer | None, vocab_size: int) -> int:
        return SpecialTokens(tokenizer, vocab_size).start(self.start, self.pad)

    def samples(
        self,
        source: IndexedDataset,
        documents: range,
        num_samples: int | None,
        *,
        tokenizer: Tokenizer | None,
        vocab_size: int,
    ) -> Dataset:
        found = SpecialTokens(tokenizer, vocab_size)
        sentinels = found.sentinels(self.sentinels)
        pad = found.find_or_none("pad", self.pad)
        start = found.start(self.start, self.pad)
        eos = found.find("eos", self.eos)
        borders = tuple(found.find_or_none(name, None) for name in ("cls", "sep"))
        continues, _ = pieces(tokenizer, vocab_size)
        return MaskedSpans(
            self.sentences(source, documents, num_samples, specials=2, least=1, vocab_size=vocab_size),
            Masker(self.masking, continues, borders),
            sequence_length=self.sequence_length,
            decoder_length=self.decoder_length,
            start_id=start,
            eos_id=eos,
            sentinel_ids=sentinels,
            pad_id=None if pad == eos else pad,
            seed=self.seed,
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_length < 4:
            raise InputError(f"decoder_length = {self.decoder_length} must be at least 4.")


CONFIG = MaskedSpansConfig


class MaskedSpans(Dataset):
    """The same rows as Megatron's for the same sample id and seed."""

    def __init__(
        self,
        sentences: Sentences,
        masker: Masker,
        *,
        sequence_length: int,
        decoder_length: int,
        start_id: int,
        eos_id: int,
        sentinel_ids: tuple[int, ...],
        pad_id: int | None,
        seed: int,
    ) -> None:
        """Args:
        sentences: Of the samples, which leave room for two special tokens.
        masker: Chooses the tokens that are hidden.
        sequence_length: Tokens of an encoder's row.
        decoder_length: Tokens of a decoder's row.
        start_id: The decoder's first token.
        eos_id: The last token that it learns.
        sentinel_ids: Stand for the spans, in order.
        pad_id: A token that is padding wherever it stands (but as the decoder's first); read as token 0.
        seed: With the sample's id, of all that is drawn.
        """
        self.sentences = sentences
        self.masker = masker
        self.sequence_length, self.decoder_length = sequence_length, decoder_length
        self.start_id, self.eos_id = start_id, eos_id
        self.sentinels = np.array(sentinel_ids, np.int64)
        self.padding = -1 if pad_id is None else pad_id
        self.seed = seed

    def __len__(self) -> int:
        return len(self.sentences)

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        rows = (len(samples), self.decoder_length)
        tokens = np.full((len(samples), self.sequence_length), self.padding, np.int32)
        decoder_tokens = np.full(rows, self.padding, np.int32)
        labels = np.zeros(rows, np.int32)
        loss_mask = np.zeros(rows, np.float32)
        random = np.random.RandomState(0)  # seeded again is much faster than made again
        for row, (sample, text) in enumerate(
            zip(samples.tolist(), self.sentences.read(samples), strict=True)
        ):
            random.seed((self.seed + sample) % 2**32)
            visible, hidden = self._divided(text.tokens[: text.length], text.length, random)
            tokens[row, : len(visible)] = visible
            decoder_tokens[row, 0] = self.start_id
            decoder_tokens[row, 1 : len(hidden) + 1] = hidden
            labels[row, : len(hidden)] = hidden
            labels[row, len(hidden)] = self.eos_id
            loss_mask[row, : len(hidden) + 1] = 1.0
        batch: Batch = {"tokens": tokens, "decoder_tokens": decoder_tokens}
        for name, side in (("segment_ids", tokens), ("decoder_segment_ids", decoder_tokens)):
            padding = side == self.padding
            if self.start_id == self.padding and side is decoder_tokens:
                padding[:, 0] = False
            side[padding] = 0
            batch[name] = (~padding).astype(np.int32)
        labels[labels == self.padding] = 0
        return batch | {"labels": labels, "loss_mask": loss_mask}

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0

    def _divided(
        self, text: Int64[np.ndarray, "text"], length: int, random: np.random.RandomState
    ) -> tuple[Int64[np.ndarray, "visible"], Int64[np.ndarray, "hidden"]]:
        """The text with sentinels for its spans, and the spans, each behind its sentinel."""
        visible, hidden, place, room = [], [], 0, self.decoder_length - 1
        runs = self.masker.choose(text, length, random)
        for run, sentinel in zip(runs, self.sentinels[:, None], strict=False):
            room -= 1 + len(run)
            if room < 0:
                break
            visible += [text[place : run[0]], sentinel]
            hidden += [sentinel, text[run]]
            place = run[-1] + 1
        return np.concatenate([*visible, text[place:]]), np.concatenate([*hidden, text[:0]])
