"""Variants of families whose encoder reads one row, and whose decoder writes another."""

import dataclasses
from typing import Any

import numpy as np

from families.variants.variant import Arrays, Prompt, Variant
from mjx.batch import BatchArrays, coded_batch
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.token_model.encoder_decoder import EncoderDecoderConfig
from mjx.trees import Tree

PROMPT_LENGTHS = (3, 7)
PROMPT_WIDTH, PROMPT_TOKENS = 8, 24
ENCODED = np.array([[9], [4]])
"""Tokens of what is encoded for each row of the prompt; the rows have eleven."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderVariant(Variant):
    """Rows of both sides are padded, and of different lengths, neither a multiple of the other."""

    config: EncoderDecoderConfig
    sequence: int = 24
    """Of the encoder."""
    decoder_sequence: int = 32
    packs: bool = False
    """Whether the rows that it trains on hold several pairs."""

    def arrays(self) -> BatchArrays:
        extras = (("positions",), ("decoder_positions",)) if self.packs else ((), ())
        return coded_batch(self.rows, self.sequence, self.decoder_sequence, *extras)

    def batch(self, seed: int) -> Arrays:
        if self.packs:
            return self._pairs(seed, self.rows)[0]
        _, alone = self._pairs(seed, self.rows // 2)
        alone["loss_mask"][-1] = 0  # a row that only fills the batch
        return alone

    def padded(self, batch: Arrays) -> Arrays:
        random, other = np.random.RandomState(7), {}
        for name in ("tokens", "decoder_tokens", "labels"):
            drawn = random.randint(0, self.config.vocab_size, batch[name].shape).astype(np.int32)
            of_decoder = "decoder_segment_ids" if name != "tokens" else "segment_ids"
            counts = batch["loss_mask"] > 0 if name == "labels" else batch[of_decoder] > 0
            other[name] = np.where(counts, batch[name], drawn)
        return batch | other

    def packed(self) -> tuple[Arrays, Arrays]:
        return self._pairs(0, self.rows if self.packs else self.rows // 2)

    def prompt(self) -> Prompt:
        random = np.random.RandomState(3)
        shape = (len(PROMPT_LENGTHS), PROMPT_TOKENS)
        tokens = random.randint(0, self.config.vocab_size, shape).astype(np.int32)
        lengths = np.array(PROMPT_LENGTHS, np.int32)
        other = random.randint(0, self.config.vocab_size, (len(lengths), PROMPT_WIDTH))
        seen = np.arange(PROMPT_WIDTH) < lengths[:, None]
        given = np.where(seen, tokens[:, :PROMPT_WIDTH], other).astype(np.int32)
        read = random.randint(0, self.config.vocab_size, (len(lengths), 11)).astype(np.int32)
        segments = (np.arange(11) < ENCODED).astype(np.int32)
        return Prompt({"tokens": read, "segment_ids": segments, "decoder_tokens": given}, lengths, tokens)

    def logits(self, model: Any, prompt: Prompt) -> Any:
        return model(prompt.batch["tokens"], prompt.tokens, segment_ids=prompt.batch["segment_ids"])

    def flops_not_counted(self) -> float:
        """The pairs of causal attention that the mask hides, and the vocabulary's padding."""
        tokens, hidden = self.rows * self.decoder_sequence, 0.0
        for sublayer in self.config.pattern:
            if isinstance(mixer := sublayer.mixer, AttentionConfig):
                heads, _, head_dim = mixer.dims
                hidden += 4 * heads * head_dim * self.decoder_sequence / 2
        padding = self.config.padded_vocab_size - self.config.vocab_size
        return tokens * (hidden + 2 * self.config.hidden_size * padding)

    def recipe(self) -> Tree:
        data = {"kind": "t5", "corpus": "python-docs", "vocab_size": self.config.vocab_size}
        lengths = {"sequence_length": self.sequence, "decoder_length": self.decoder_sequence}
        return super().recipe() | {"data": data | lengths}

    def _pairs(self, seed: int, rows: int) -> tuple[Arrays, Arrays]:
        """Two pairs and some padding in every row of both sides; and each pair in rows of its own, padded
        behind. What is written follows from what is read, so that it can be learnt."""
        random, vocabulary = np.random.RandomState(seed), self.config.vocab_size
        lengths = {"": self.sequence, "decoder_": self.decoder_sequence}
        packed: Arrays = {}
        alone: Arrays = {}
        for side, length in lengths.items():
            for name in ("tokens", "segment_ids", "positions"):
                packed[side + name] = np.zeros((rows, length), np.int32)
                alone[side + name] = np.zeros((2 * rows, length), np.int32)
        for batch in (packed, alone):
            for name, dtype in (("labels", np.int32), ("loss_mask", np.float32)):
                batch[name] = np.zeros(batch["decoder_tokens"].shape, dtype)
        for row in range(rows):
            cuts = {side: random.randint(3, length - 5) for side, length in lengths.items()}
            firsts = random.randint(0, vocabulary, 2)
            for pair, first in enumerate(firsts):
                for side, length in lengths.items():
                    ends = (0, cuts[side], length - random.randint(0, 3))
                    begin, size = ends[pair], ends[pair + 1] - ends[pair]
                    text = ((first if side else 2 * first) + np.arange(size + 1)) % vocabulary
                    made = {f"{side}tokens": text[:-1], f"{side}positions": np.arange(size)}
                    if side:
                        made |= {"labels": text[1:], "loss_mask": random.rand(size) < 0.8}
                    for name, array in made.items():
                        packed[name][row, begin : begin + size] = array
                        alone[name][2 * row + pair, :size] = array
                    packed[f"{side}segment_ids"][row, begin : begin + size] = pair + 1
                    alone[f"{side}segment_ids"][2 * row + pair, :size] = 1
        for name in ("positions", "decoder_positions"):  # counted from the row's start
            del alone[name]
        return packed, alone
