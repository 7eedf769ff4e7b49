"""Language models that see: an encoder's features in the places of tokens (Liu et al. 2023)."""

import dataclasses
from typing import Any, ClassVar

from flax import nnx

from mjx.batch import BatchArray, BatchArrays, check_arrays
from mjx.errors import InputError
from mjx.models.common.pattern import Lengths
from mjx.models.common.pictures.encoder import PictureEncoderConfig
from mjx.models.common.pictures.sight import Sight
from mjx.models.common.token_model.language_model import LanguageModelConfig
from mjx.models.family import ModelConfig
from mjx.models.multimodal.projector import ProjectorConfig
from mjx.sharding import inside

SEEN = ("patches", "grid", "patch_segment_ids")
"""What the encoder is given of a row's pictures: as `ImageInputs`, packed into one row of patches."""
PLACES = ("image_at", "newline_at")
"""Which places of a row features take, and the newlines between them; beyond the row: none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultimodalConfig(ModelConfig):
    """Any encoder of pictures, a projector, any language model that continues text."""

    family: ClassVar[str] = "multimodal"
    modules: ClassVar[tuple[str, ...]] = ("vision",)
    training_choices: ClassVar[tuple[str, ...]] = (
        *("dtype", "remat", "language.dtype", "language.remat", "language.loss_chunks", "language.z_loss"),
        *("language.dropout", "vision.dtype", "vision.remat", "vision.dropout"),
    )

    language: LanguageModelConfig
    """The language model, of whatever family."""
    vision: PictureEncoderConfig
    """The encoder."""
    projector: ProjectorConfig = ProjectorConfig()
    """From the encoder's features to the language model's."""
    image_token: int
    """The id that stands in a text where features take a token's place."""
    vision_layers: int | None = None
    """How many of the encoder's layers are run (LLaVA leaves the last one out); null: all, and the norm
    behind them. The others keep their weights."""
    learned_seen: bool = False
    """The encoder's learned tokens take places too, in front of the patches."""
    video_token: int | None = None
    """The id that stands where features of videos take a token's place; null: there are none."""
    frame_pace: float | None = None
    """Positions of the text in a second of a video, by which patches that follow in time are apart
    (Qwen2.5-VL); null: they are one apart."""
    merged: int = 1
    """Patches that become one token, their features one behind the other, as they follow in a row."""
    pinpoints: tuple[tuple[int, int], ...] = ()
    """Heights and widths in pixels at which pictures are seen, the best of them for each, in tiles of the
    encoder's size behind the whole: their features are one grid, without what is only padding, with a
    learned newline behind each row (LLaVA-NeXT). []: pictures, or their tiles, one behind the other."""

    def __post_init__(self):
        if not 0 <= self.image_token < self.language.vocab_size:
            raise InputError(
                f"model.image_token = {self.image_token} is no token of model.language.vocab_size = "
                f"{self.language.vocab_size}"
            )
        if self.video_token is not None and not 0 <= self.video_token < self.language.vocab_size:
            raise InputError(
                f"model.video_token = {self.video_token} is no token of model.language.vocab_size = "
                f"{self.language.vocab_size}"
            )
        if self.merged < 1:
            raise InputError(f"model.merged = {self.merged} must be positive")
        if self.learned_seen and self.merged > 1:
            raise InputError(
                f"model.learned_seen = true gives learned tokens places, but model.merged = {self.merged} "
                "joins patches alone; set one of them to its default"
            )
        if self.pinpoints and (self.merged > 1 or (self.learned_seen and self.vision.learned_tokens)):
            raise InputError(
                "model.pinpoints make one grid of single patches; set model.merged = 1 and "
                "model.learned_seen = false"
            )
        if any(min(sides) < 1 for sides in self.pinpoints):
            raise InputError(
                f"model.pinpoints = {[list(sides) for sides in self.pinpoints]} must be positive heights and "
                "widths"
            )
        layers = self.vision_layers
        if layers is not None and not 0 < layers <= self.vision.num_layers:
            raise InputError(
                f"model.vision_layers = {layers} must be from 1 to model.vision.num_layers = "
                f"{self.vision.num_layers}, or null for all"
            )

    @property
    def axes(self) -> int:
        """Of the positions in the text."""
        attention = getattr(self.language, "attention", None)
        rope = getattr(attention, "rope", None)
        return len(rope.sections) if rope is not None and rope.sections is not None else 1

    @property
    def vocabulary(self) -> int | None:
        return self.language.vocabulary

    @property
    def sight(self) -> Sight:
        from mjx.models.multimodal.sight import MultimodalSight

        return MultimodalSight(self)

    @property
    def rows_apart(self) -> bool:
        return self.language.rows_apart and self.vision.rows_apart

    @property
    def settled(self) -> "MultimodalConfig":
        """With `dtype` and `remat` in the parts too that do not choose for themselves."""

        def of(part: ModelConfig) -> dict[str, Any]:
            return {
                "dtype": self.dtype if part.dtype == "auto" else part.dtype,
                "remat": self.remat if part.remat == "none" else part.remat,
            }

        language, vision = (dataclasses.replace(part, **of(part)) for part in (self.language, self.vision))
        return dataclasses.replace(self, language=language, vision=vision)

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        from mjx.models.multimodal.model import Multimodal

        return Multimodal(self, rngs=rngs)

    def num_parameters(self) -> int:
        """Without the padding of the vocabulary."""
        padded = self.language.padded_vocab_size - self.language.vocab_size
        whole = super().num_parameters()
        tables = 1 if self.language.tie_embeddings else 2
        return whole - padded * (tables * self.language.hidden_size + self.language.head_bias)

    def lengths(self, arrays: BatchArrays) -> dict[str, Lengths]:
        text = self._text(arrays)
        of_text = {f"language.{name}": each for name, each in self.language.lengths(text).items()}
        return of_text | {f"vision.{name}": each for name, each in self.vision.lengths(arrays).items()}

    def flops(self, arrays: BatchArrays) -> float:
        rows, seen, _ = arrays["patches"].shape
        made = seen // self.merged
        read = self.vision.hidden_size * self.merged
        projected = self.projector.flops_per_token(read, self.language.hidden_size)
        run = dataclasses.replace(self.vision, num_layers=self.vision_layers or self.vision.num_layers)
        return self.language.flops(self._text(arrays)) + run.flops(arrays) + 3 * rows * made * projected

    def decided(self, arrays: BatchArrays) -> tuple[str, ...]:
        with inside("vision"):
            of_vision = self.vision.decided(arrays)
        return (*self.language.decided(self._text(arrays)), *of_vision)

    def _text(self, arrays: BatchArrays) -> BatchArrays:
        """What is the language model's."""
        return {name: array for name, array in arrays.items() if name not in (*SEEN, *PLACES)}

    def _along_time(self, arrays: BatchArrays) -> BatchArray:
        """The positions, as the language model would check those of text alone."""
        shape = arrays["tokens"].shape
        positions = arrays.get("positions")
        if positions is None or positions.shape != (*shape, self.axes):
            found = "none" if positions is None else f"the shape {positions.shape}"
            raise InputError(
                f"batch array 'positions' has {found}; model.language.attention.rope.sections want "
                f"{(*shape, self.axes)}"
            )
        return BatchArray(shape=shape, dtype=positions.dtype, axes=positions.axes[:2])

    def check_devices(self) -> None:
        self.language.check_devices()
        self.vision.check_devices()

    def newlines(self, patches: int) -> int:
        """The most there may be in a row of so many patches."""
        return patches // self.vision.grid[1] if self.pinpoints else 0

    def check_batch(self, arrays: BatchArrays) -> None:
        dtypes = {"patches": "float32", "grid": "int32", "patch_segment_ids": "int32", "image_at": "int32"}
        if self.pinpoints:
            dtypes["newline_at"] = "int32"
        text = {name: array for name, array in arrays.items() if name not in dtypes}
        if self.axes > 1:
            text["positions"] = self._along_time(arrays)
        self.language.check_batch(text)
        check_arrays(arrays, dtypes, {name: array.dtype for name, array in text.items()})
        self.vision.check_pictures(arrays)
        seen, made = arrays["patches"].shape[1], arrays["image_at"].shape[1]
        if made * self.merged != seen:
            raise InputError(
                f"batch array 'image_at' has {made} places in a row; {seen} patches, of which model.merged = "
                f"{self.merged} make one, need {seen / self.merged:g}"
            )
