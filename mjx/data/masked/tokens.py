"""Rows for an encoder that learns hidden tokens, and whether two segments stand in their order: BERT's."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int64

from mjx.batch import BatchArray, BatchArrays, token_batch
from mjx.data.dataset import Batch, Dataset
from mjx.data.indexed import IndexedDataset
from mjx.data.masked.config import MaskedConfig, pieces
from mjx.data.masked.masking import Masker
from mjx.data.masked.sentences import Sample, Sentences
from mjx.data.tokenizers import Tokenizer
from mjx.data.tokenizers.special import SpecialToken, SpecialTokens

_MASKED, _KEPT = 0.8, 0.5
"""The share of hidden tokens that become the mask token, and of the others that which stays as it is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedTokensConfig(MaskedConfig):
    """Megatron's BERTMaskedWordPieceDataset: `[CLS] A [SEP] B [SEP]`, some tokens replaced."""

    kind: ClassVar[str] = "bert"

    pairs: bool = True
    """Two segments, exchanged in half of the rows (gives token_types and is_random); else one. Megatron: its
    opposite, --bert-no-binary-head."""
    cls: SpecialToken = None
    """What begins a row: a token or its id; null: what the tokenizer calls so."""
    sep: SpecialToken = None
    """What ends a segment: a token or its id; null: what the tokenizer calls so."""
    mask: SpecialToken = None
    """What stands for hidden tokens: a token or its id; null: what the tokenizer calls so."""

    def arrays(self, rows: int) -> BatchArrays:
        types = ("token_types",) if self.pairs else ()
        arrays = token_batch(rows, self.sequence_length, (*types, "segment_ids"))
        if self.pairs:
            arrays["is_random"] = BatchArray(shape=(rows,), dtype="int32", axes=("batch",))
        return arrays

    def prompts(self, tokenizer: Tokenizer, texts: Sequence[str], vocab_size: int) -> list[list[int]]:
        """As a row of one segment."""
        found = SpecialTokens(tokenizer, vocab_size)
        cls, sep = found.find("cls", self.cls), found.find("sep", self.sep)
        return [[cls, *row, sep] for row in tokenizer.encode_batch(texts)]

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
        cls, sep, mask = (found.find(name, getattr(self, name)) for name in ("cls", "sep", "mask"))
        pad = found.find_or_none("pad", self.pad)
        continues, replacements = pieces(tokenizer, vocab_size)
        return MaskedTokens(
            self.sentences(
                source,
                documents,
                num_samples,
                specials=3,
                least=2 if self.pairs else 1,
                vocab_size=vocab_size,
            ),
            Masker(self.masking, continues, (cls, sep)),
            sequence_length=self.sequence_length,
            pairs=self.pairs,
            cls_id=cls,
            sep_id=sep,
            mask_id=mask,
            pad_id=None if pad in (cls, sep, mask) else pad,
            replacements=replacements,
            seed=self.seed,
        )


CONFIG = MaskedTokensConfig


class MaskedTokens(Dataset):
    """The same tokens, labels, masks and exchanges as Megatron's for the same sample id and seed."""

    def __init__(
        self,
        sentences: Sentences,
        masker: Masker,
        *,
        sequence_length: int,
        pairs: bool,
        cls_id: int,
        sep_id: int,
        mask_id: int,
        pad_id: int | None,
        replacements: Int[np.ndarray, "tokens"],
        seed: int,
    ) -> None:
        """Args:
        sentences: Of the samples, which leave room for three special tokens.
        masker: Chooses the tokens that are hidden.
        sequence_length: Tokens of a row.
        pairs: Two segments, exchanged in half of the rows.
        cls_id: Begins a row.
        sep_id: Ends a segment.
        mask_id: Stands for hidden tokens.
        pad_id: A token that is padding wherever it stands; it is read as token 0.
        replacements: What may stand for hidden tokens instead.
        seed: With the sample's id, of all that is drawn.
        """
        self.sentences = sentences
        self.masker = masker
        self.sequence_length = sequence_length
        self.pairs = pairs
        self.cls_id, self.sep_id, self.mask_id = cls_id, sep_id, mask_id
        self.padding = -1 if pad_id is None else pad_id
        self.replacements = replacements
        self.seed = seed

    def __len__(self) -> int:
        return len(self.sentences)

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        rows = (len(samples), self.sequence_length)
        batch: Batch = {name: np.zeros(rows, np.int32) for name in ("tokens", "labels")}
        batch["tokens"][:] = self.padding
        batch["loss_mask"] = np.zeros(rows, np.float32)
        if self.pairs:
            batch["token_types"] = np.zeros(rows, np.int32)
            batch["is_random"] = np.zeros(len(samples), np.int32)
        random = np.random.RandomState(0)  # seeded again is much faster than made again
        for row, (sample, text) in enumerate(
            zip(samples.tolist(), self.sentences.read(samples), strict=True)
        ):
            random.seed((self.seed + sample) % 2**32)
            first, second, exchanged = self._segments(text, random)
            tokens = np.concatenate([[self.cls_id], first, [self.sep_id]])
            if len(second):
                batch["token_types"][row, len(tokens) : len(tokens) + len(second) + 1] = 1
                tokens = np.concatenate([tokens, second, [self.sep_id]])
            shown = tokens.copy()
            hide = functools.partial(self._hide, shown, random)
            hidden = list(itertools.chain(*self.masker.choose(tokens, text.length, random, hide)))
            batch["tokens"][row, : len(tokens)] = shown
            batch["labels"][row, hidden] = tokens[hidden]
            batch["loss_mask"][row, hidden] = 1.0
            if self.pairs:
                batch["is_random"][row] = exchanged
        padding = batch["tokens"] == self.padding
        batch["segment_ids"] = (~padding).astype(np.int32)
        batch["tokens"][padding] = 0
        batch["labels"][batch["labels"] == self.padding] = 0
        return batch

    def _segments(
        self, text: Sample, random: np.random.RandomState
    ) -> tuple[Int64[np.ndarray, "first"], Int64[np.ndarray, "second"], bool]:
        """The two segments, of which tokens are cut off until they fit, and whether they are exchanged."""
        pivot, exchanged = len(text.ends), False
        if self.pairs:
            pivot = 1 if pivot < 3 else int(random.randint(low=1, high=pivot))
            exchanged = bool(random.random_sample() < 0.5)
        middle = text.ends[pivot - 1]
        segments = [text.tokens[:middle], text.tokens[middle:]]
        if exchanged:
            segments.reverse()
        excess = len(text.tokens) - text.length
        if excess > 0:
            # From the longer one, then in turns; of each token it is drawn from which of the two ends.
            longer = 0 if len(segments[0]) > len(segments[1]) else 1
            difference = abs(len(segments[0]) - len(segments[1]))
            cut = np.empty(excess, np.int64)
            cut[:difference] = longer
            cut[difference:] = (np.arange(max(0, excess - difference)) + 1) % 2
            from_front = random.random_sample(excess) < 0.5
            for number, segment in enumerate(segments):
                front = int(from_front[cut == number].sum())
                back = int((cut == number).sum()) - front
                segments[number] = segment[front : len(segment) - back]
        return segments[0], segments[1], exchanged

    def _hide(self, shown: Int64[np.ndarray, "tokens"], random: np.random.RandomState, place: int) -> None:
        if random.random_sample() < _MASKED:
            shown[place] = self.mask_id
        elif random.random_sample() >= _KEPT:
            shown[place] = self.replacements[random.randint(0, len(self.replacements))]

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0
        if self.pairs:
            batch["is_random"][rows] = -1
