"""Pictures and captions, for a model that learns which belong together: two towers."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Int, Int64

from mjx.batch import BatchArray, BatchArrays
from mjx.data.dataset import Batch, Dataset
from mjx.data.image_text.config import ToldConfig
from mjx.data.image_text.tokens import TextTokens, tokenized
from mjx.data.image_text.told import ToldPictures
from mjx.data.images.prepare import AugmentationConfig
from mjx.data.images.rows import PictureRows
from mjx.data.images.splits import Broken, PictureSplits
from mjx.data.pairs.surrounded import Surrounding
from mjx.data.tokenizers import Tokenizer
from mjx.data.tokenizers.special import SpecialToken
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionsConfig(ToldConfig):
    """A picture a row, and a caption of it, `[CLS] caption [SEP]`; of several one that chance draws."""

    kind: ClassVar[str] = "captions"

    sequence_length: int = 77
    """Tokens of a caption, with special tokens. What is longer is cut, with a warning."""
    cls: SpecialToken = None
    """What begins a caption: a token or its id; null: what the tokenizer calls so."""
    sep: SpecialToken = None
    """What ends it: a token or its id; null: what the tokenizer calls so."""
    pad: SpecialToken = None
    """What fills rows: a token or its id; null: what the tokenizer calls so, else 0."""

    def arrays(self, rows: int) -> BatchArrays:
        shape, axes = (rows, *self.image.shape), ("batch", "channels", "height", "width")
        arrays = {"images": BatchArray(shape=shape, dtype="float32", axes=axes)}
        for name in ("tokens", "segment_ids"):
            arrays[name] = BatchArray(
                shape=(rows, self.sequence_length), dtype="int32", axes=("batch", "sequence")
            )
        return arrays | {"loss_mask": BatchArray(shape=(rows,), dtype="float32", axes=("batch",))}

    def surrounding(self, tokenizer: Tokenizer | None, vocab_size: int) -> Surrounding:
        """What stands around a caption."""
        return Surrounding.of(tokenizer, vocab_size, first=self.cls, sep=self.sep, pad=self.pad)

    def prompts(self, tokenizer: Tokenizer, texts: Sequence[str], vocab_size: int) -> list[list[int]]:
        """As captions."""
        around = self.surrounding(tokenizer, vocab_size)
        return [around.alone(row) for row in tokenizer.encode_batch(texts)]

    def open(self, vocabulary: int | None = None) -> "CaptionSplits":
        sources, validation, tokenizer, vocab_size = self.opened(vocabulary)
        return CaptionSplits(
            config=self,
            sources=sources,
            validation_sources=validation,
            broken=Broken(),
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            around=self.surrounding(tokenizer, vocab_size),
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sequence_length < 4:
            raise InputError(f"sequence_length = {self.sequence_length} must be at least 4.")


CONFIG = CaptionsConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionSplits(PictureSplits[ToldPictures]):
    """The opened sources of a `CaptionsConfig`."""

    config: CaptionsConfig
    around: Surrounding

    def samples(
        self,
        source: ToldPictures,
        rows: Int64[np.ndarray, "rows"],
        num_samples: int | None,
        augment: AugmentationConfig | None,
        number: int,
    ) -> Dataset:
        assert self.tokenizer is not None
        assert self.vocab_size is not None
        counts = np.diff(source.first)
        if (counts != 1).any():
            at = int(np.flatnonzero(counts != 1)[0])
            raise InputError(
                f"{source.path}: sample {at + 1} has {counts[at]} pictures; data.kind = captions needs one "
                "in each."
            )
        for told, place in zip(source.told, source.places, strict=True):
            if not isinstance(told[0], str):
                raise InputError(
                    f"{place}: there is a conversation, and no caption, which data.kind = captions needs; "
                    "name another data.text_key."
                )
        texts = tokenized(
            source,
            lambda sample: [[(str(caption), True)] for caption in source.told[sample]],
            self.tokenizer,
            self.config.cache_dir,
            ["captions"],
        )
        texts.check(self.vocab_size, source.path)
        return CaptionedPictures(
            source,
            texts,
            rows,
            num_samples,
            config=self.config,
            around=self.around,
            augment=augment,
            broken=self.broken,
            number=number,
        )


class CaptionedPictures(PictureRows):
    """Pictures and captions. Where a picture has several, one is drawn in training, else the first
    is read."""

    def __init__(
        self,
        pictures: ToldPictures,
        texts: TextTokens,
        rows: Int64[np.ndarray, "rows"],
        num_samples: int | None,
        *,
        config: CaptionsConfig,
        around: Surrounding,
        augment: AugmentationConfig | None,
        broken: Broken,
        number: int,
    ) -> None:
        """As `PictureRows`, with the tokens of the captions, and what stands around them."""
        super().__init__(
            pictures, rows, num_samples, config=config, augment=augment, broken=broken, number=number
        )
        self.texts, self.around = texts, around
        self.width = config.sequence_length
        self.longest = self.width - around.special(1)
        cut = int((np.diff(texts.starts) > self.longest).sum())
        if cut:
            logging.getLogger("mjx").warning(
                "%s: %d of %d captions have more than data.sequence_length = %d tokens, and are cut",
                *(pictures.path, cut, len(texts.starts) - 1, self.width),
            )

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        images, found, mask = self.images(samples)
        captions = [
            self.texts.text(self._drawn(int(row), int(sample)))[0][: self.longest]
            for row, sample in zip(self.rows[found], samples, strict=True)
        ]
        kept = np.array([[len(caption)] for caption in captions], np.int64)
        made = self.around.rows(np.concatenate(captions), kept, self.width)
        return {
            "images": images,
            "tokens": made["tokens"],
            "segment_ids": made["segment_ids"],
            "loss_mask": mask,
        }

    def _drawn(self, row: int, sample: int) -> int:
        """Which text is read."""
        first, stop = self.texts.texts[row : row + 2].tolist()
        if not self.replaces or stop - first == 1:
            return first
        random = np.random.default_rng((self.config.seed, self.number, sample, 1))
        return first + int(random.integers(stop - first))
