"""Rows of text in which pictures stand, for a language model that sees and learns what is answered."""

import copy
import dataclasses
from typing import ClassVar, Self

import numpy as np
from jaxtyping import Bool, Int, Int64

from mjx.batch import BatchArrays, token_batch
from mjx.data.dataset import Batch, Dataset
from mjx.data.image_text.chats import Chats
from mjx.data.image_text.config import ToldConfig
from mjx.data.image_text.fitted import Fitted, fitted
from mjx.data.image_text.tokens import MARK_ID, TextTokens, tokenized
from mjx.data.image_text.told import ToldPictures
from mjx.data.images.prepare import AugmentationConfig
from mjx.data.images.splits import Broken, PictureSplits
from mjx.data.pairs.order import row_order
from mjx.data.splits import EmptyPartError
from mjx.data.tokenizers.special import SpecialToken, SpecialTokens
from mjx.errors import InputError
from mjx.files import LocalPath
from mjx.models.common.pictures.expanded import expanded
from mjx.models.common.pictures.sight import Sight


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTextConfig(ToldConfig):
    """Captions (`picture`, `prompt`, and the caption that is learned) or conversations, of which the answers
    are learned. Every picture takes as many places in the text as the model makes features of it."""

    kind: ClassVar[str] = "image_text"

    sequence_length: int = 512
    """Tokens in a row, the places of pictures among them. Text beyond is cut, with a warning; a sample whose
    pictures do not fit is left out."""
    pictures: int = 1
    """So many have room in a row."""
    packing: bool = True
    """Rows of as many samples as fit, each apart from the others, with positions of its own."""
    prompt: str = "\n"
    """What stands between a picture and the caption that is learned; a token at least, for the places of
    pictures do not count, and so tell nothing."""
    chat_template: LocalPath | None = None
    """A file with a Jinja template for conversations; null: the tokenizer folder's."""
    eos: SpecialToken = None
    """What ends a caption: a token or its id; null: what ends the tokenizer's documents."""

    def seen_by(self, sight: Sight | None) -> Self:
        if sight is None:
            raise InputError(
                "data.kind = image_text is for a model in whose texts pictures stand, which this one is "
                "not; choose another kind, or another model.family."
            )
        bound = copy.copy(self)
        # Not a field: it is the model's, and stands in the model's config.
        object.__setattr__(bound, "_sight", sight)
        if self.sequence_length <= (least := sight.places(*self.image.size)):
            raise InputError(
                f"data.sequence_length = {self.sequence_length} has no room for a picture, which takes "
                f"{least} tokens, and text."
            )
        return bound

    @property
    def sight(self) -> Sight:
        """Of the model that the data are for (`seen_by`)."""
        sight = getattr(self, "_sight", None)
        if sight is None:
            raise InputError("data.kind = image_text has no arrays without the model that sees the pictures.")
        return sight

    @property
    def patches(self) -> int:
        """Tokens of a row of the encoder."""
        return self.pictures * self.sight.patches(*self.image.size)

    def arrays(self, rows: int) -> BatchArrays:
        text = token_batch(rows, self.sequence_length, ("positions", "segment_ids"))
        return {**text, **self.sight.arrays(rows, self.sequence_length, self.patches)}

    def open(self, vocabulary: int | None = None) -> "ImageTextSplits":
        sources, validation, tokenizer, vocab_size = self.opened(vocabulary)
        chats = Chats.of(tokenizer, self.tokenizer, self.chat_template, self.sight.image_token)
        return ImageTextSplits(
            config=self,
            sources=sources,
            validation_sources=validation,
            broken=Broken(),
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            chats=chats,
            end=SpecialTokens(tokenizer, vocab_size).find("eos", self.eos),
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sequence_length < 8:
            raise InputError(f"sequence_length = {self.sequence_length} must be at least 8.")
        if self.pictures < 1:
            raise InputError(f"pictures = {self.pictures} must be at least 1.")


CONFIG = ImageTextConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTextSplits(PictureSplits[ToldPictures]):
    """The opened sources of an `ImageTextConfig`."""

    config: ImageTextConfig
    chats: Chats
    end: int
    """The token behind captions."""

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
        config = self.config
        texts = tokenized(
            source,
            lambda sample: self.chats.pieces(source, sample, config.prompt),
            self.tokenizer,
            config.cache_dir,
            [config.prompt, self.chats.source, self.end],
            end=self.end,
        )
        texts.check(self.vocab_size, source.path, config.sight.image_token)
        if (texts.learned[1:] & (texts.tokens[:-1] == MARK_ID)).any():
            raise InputError(
                f"{source.path}: what is learned stands right behind a picture, whose places tell nothing; "
                f"data.prompt = {config.prompt!r} (or the chat template) should be a token at least."
            )
        found = fitted(
            texts,
            rows,
            np.diff(source.first),
            path=source.path,
            length=config.sequence_length,
            places=config.sight.places(*config.image.size),
            pictures=config.pictures,
        )
        if not len(found.rows):
            raise EmptyPartError(
                f"{source.path}: no document of {len(rows)} has room in data.sequence_length = "
                f"{config.sequence_length}."
            )
        return AnsweredPictures(
            source,
            texts,
            found,
            num_samples,
            config=config,
            augment=augment,
            broken=self.broken,
            number=number,
        )


class AnsweredPictures(Dataset):
    """Rows of one sample, or of several, in an order drawn anew in every epoch. A sample with a picture that
    cannot be read has no weight."""

    def __init__(
        self,
        source: ToldPictures,
        texts: TextTokens,
        fitting: Fitted,
        num_samples: int | None,
        *,
        config: ImageTextConfig,
        augment: AugmentationConfig | None,
        broken: Broken,
        number: int,
    ) -> None:
        """Args:
        source: Pictures.
        texts: What is told of them.
        fitting: The samples that have room in a row.
        num_samples: So many rows, over as many epochs as it takes; None: every sample once.
        config: How rows are made of them.
        augment: By which chance.
        broken: Where pictures are counted that cannot be read.
        number: Of the source among those of the blend.
        """
        self.source, self.texts, self.fitting = source, texts, fitting
        self.config, self.augment, self.broken, self.number = config, augment, broken, number
        self.draws = num_samples is not None
        self.samples, self.row_start = fitting.packed(config.seed, config.packing)
        """The samples (of `fitting`), those of a row one after another; the first of each row."""
        self.order = row_order(np.zeros(len(self.row_start) - 1, np.int64), num_samples, config.seed)

    def __len__(self) -> int:
        return len(self.order)

    def read(self, samples: Int[np.ndarray, "batch"]) -> Batch:
        config = self.config
        shape = (len(samples), config.sequence_length)
        batch: Batch = {
            name: np.zeros(shape, np.int32) for name in ("tokens", "labels", "positions", "segment_ids")
        }
        batch["loss_mask"] = np.zeros(shape, np.float32)
        batch["tokens"][:] = 0 if config.sight.image_token else 1  # padding takes no feature
        pictures: list[list[np.ndarray]] = []
        for row, sample in enumerate(np.asarray(samples).tolist()):
            start, stop = self.row_start[self.order[sample] : self.order[sample] + 2]
            place, of_row = 0, []
            for within, one in enumerate(self.samples[start:stop].tolist()):
                images, whole = self._pictures(one, (sample, within))
                made = self._text(one, (sample, within), len(images))
                here = slice(place, place := place + len(made.tokens[0]))
                batch["tokens"][row, here], batch["labels"][row, here] = made.tokens[0], made.labels[0]
                batch["loss_mask"][row, here] = made.loss_mask[0] * whole
                batch["positions"][row, here] = np.arange(here.stop - here.start)
                batch["segment_ids"][row, here] = within + 1
                of_row += images
            pictures.append(of_row)
        seen = config.sight.seen(batch["tokens"], batch["segment_ids"], pictures, config.patches)
        return batch | seen

    def blank(self, batch: Batch, rows: Bool[np.ndarray, "batch"]) -> None:
        batch["loss_mask"][rows] = 0.0

    def _text(self, one: int, chance: tuple[int, ...], pictures: int):
        """A sample's text, with room for its pictures."""
        row = int(self.fitting.rows[one])
        first, stop = self.texts.texts[row : row + 2].tolist()
        if self.draws and stop - first > 1:
            random = np.random.default_rng((self.config.seed, self.number, *chance, 1))
            first += int(random.integers(stop - first))
        tokens, learned = self.texts.text(first)
        places = self.config.sight.places(*self.config.image.size)
        tokens = tokens[: self.config.sequence_length + 1 - pictures * (places - 1)]
        learned = learned[: len(tokens)]
        return expanded(
            tokens[None, :-1],
            tokens[None, 1:],
            learned[None, 1:].astype(np.float32),
            [[places] * pictures],
            mark=MARK_ID,
            image_token=self.config.sight.image_token,
        )

    def _pictures(self, one: int, chance: tuple[int, ...]) -> tuple[list[np.ndarray], bool]:
        """A sample's pictures, black where they cannot be read, and whether all can."""
        row, config, whole = int(self.fitting.rows[one]), self.config, True
        images: list[np.ndarray] = []
        for at, number in enumerate(range(*self.source.first[row : row + 2].tolist())):
            seed = (config.seed, self.number, *chance, at)
            image = self.broken.read(self.source, number, config.image, self.augment, seed)
            whole &= image is not None
            images.append(np.zeros(config.image.shape, np.float32) if image is None else image)
        return images, whole
