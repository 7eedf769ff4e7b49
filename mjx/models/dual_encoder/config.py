"""Two towers, of pictures and of texts (Radford et al. 2021; Zhai et al. 2023)."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

from flax import nnx

from mjx.batch import BatchArrays, check_arrays
from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.common.pattern import Exchange, Lengths, StepOnMesh
from mjx.models.common.pictures.encoder import PictureEncoderConfig
from mjx.models.common.share import Share
from mjx.models.common.stacked_config import StackedConfig
from mjx.models.common.token_model.config import TokenModelConfig
from mjx.models.common.token_model.encoder_decoder import EncoderDecoderConfig
from mjx.models.dual_encoder.sigmoid_loss import ring_exchange
from mjx.models.family import ModelConfig

TextPooling = Literal["token", "last", "first", "mean"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """One layer behind a tower."""

    features: int
    """Of what is compared."""
    bias: bool = False
    """Add one to each."""

    def __post_init__(self):
        if self.features < 1:
            raise InputError(f"features = {self.features} of a projection must be positive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DualEncoderConfig(ModelConfig):
    """Any encoder of pictures and any model of token ids, whose states of whole rows are compared.

    The defaults are CLIP's. `dtype` and `remat` are those of both towers, unless they are left as they are.
    """

    family: ClassVar[str] = "dual_encoder"
    modules: ClassVar[tuple[str, ...]] = ("vision",)
    training_choices: ClassVar[tuple[str, ...]] = ("dtype", "remat", "largest_scale")

    vision: PictureEncoderConfig
    """The tower of pictures; what it says of a whole picture is its own."""
    text: TokenModelConfig
    """The tower of texts, of whatever family; its head is not used."""
    text_pooling: TextPooling = "token"
    """Whose state stands for a text: the first `end_token`, the last token, the first, or the mean of all."""
    end_token: int | None = None
    """What text_pooling = token looks for; null: the row's largest id, as CLIP's tokenizer has it."""
    pad_token: int | None = None
    """What stands behind a text, up to text.max_positions, and is read as a token is: the last one is always
    the row's last place (SigLIP). null: nothing behind a text is read."""
    vision_projection: ProjectionConfig | None = None
    """Behind the tower of pictures; null: its features are compared as they are."""
    text_projection: ProjectionConfig | None = None
    """Behind the tower of texts."""
    loss: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: of all texts of a batch, a picture should be most like its own, and a text of all pictures.
    sigmoid: every pair of a picture and a text is told to belong together or not, by itself."""
    logit_scale: float = math.log(1 / 0.07)
    """What the logarithm of the learned factor on cosines begins as."""
    logit_bias: float | None = None
    """What a learned number added to the logits begins as; null: there is none."""
    largest_scale: float | None = 100.0
    """The factor is kept from being larger in training; null: it is not."""

    def __post_init__(self):
        _check_tower(self.text)
        if isinstance(self.text, EncoderDecoderConfig):
            raise InputError(
                "model.text reads one row, and an encoder-decoder two; choose a model with one stack"
            )
        if getattr(self.vision, "classes", None) is not None:
            raise InputError("model.vision.classes is of a head that stays untrained; set it to null")
        of_vision, of_text = self.compared
        if of_vision != of_text:
            raise InputError(
                f"what model.vision makes of a picture has {of_vision} features, and what model.text makes "
                f"of a text {of_text}; set features of model.vision_projection and model.text_projection "
                "to one number"
            )
        for name in ("end_token", "pad_token"):
            token = getattr(self, name)
            if token is not None and not 0 <= token < self.text.vocab_size:
                raise InputError(
                    f"model.{name} = {token} is no token of model.text.vocab_size = {self.text.vocab_size}"
                )
        if self.end_token is not None and self.text_pooling != "token":
            raise InputError(
                f"model.end_token = {self.end_token} is read by model.text_pooling = token, which is "
                f"{self.text_pooling}"
            )
        if self.pad_token is not None and self.text.longest_row is None:
            raise InputError(
                f"model.pad_token = {self.pad_token} fills rows up to model.text.max_positions, which is null"
            )
        if (self.logit_bias is None) != (self.loss == "softmax"):
            raise InputError(
                f"model.loss = {self.loss} "
                + (
                    f"does not see model.logit_bias = {self.logit_bias}; set it to null"
                    if self.loss == "softmax"
                    else "needs model.logit_bias, from where it begins, such as -10"
                )
            )
        for name in ("logit_scale", "logit_bias"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InputError(f"model.{name} = {value} must be a finite number")
        if self.largest_scale is not None:
            check_scale("model.largest_scale", self.largest_scale, ", or null for none")

    @property
    def compared(self) -> tuple[int, int]:
        """Features of a picture, and of a text, behind the projections."""
        vision, text = self.vision_projection, self.text_projection
        return (
            self.vision.said_features if vision is None else vision.features,
            self.text.hidden_size if text is None else text.features,
        )

    @property
    def towers(self) -> tuple[PictureEncoderConfig, TokenModelConfig]:
        """With what is said of the whole model."""
        over: dict[str, Any] = {} if self.dtype == "auto" else {"dtype": self.dtype}
        over |= {} if self.remat == "none" else {"remat": self.remat}
        return dataclasses.replace(self.vision, **over), dataclasses.replace(self.text, **over)

    @property
    def vocabulary(self) -> int | None:
        return self.text.vocabulary

    @property
    def rows_together(self) -> str | None:
        return "model.loss"

    @property
    def rows_apart(self) -> bool:
        return False

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        from mjx.models.dual_encoder.model import DualEncoder

        return DualEncoder(self, rngs=rngs)

    def num_parameters(self) -> int:
        """Without the padding of the vocabulary."""
        padding = self.text.padded_vocab_size - self.text.vocab_size
        return super().num_parameters() - padding * self.text.hidden_size

    def num_active_parameters(self) -> int:
        towers = self.vision, self.text
        idle = sum(tower.num_parameters() - tower.num_active_parameters() for tower in towers)
        return self.num_parameters() - idle

    def lengths(self, arrays: BatchArrays) -> dict[str, Lengths]:
        of_text = self.text.lengths(self._text(arrays))
        return {f"vision.{name}": each for name, each in self.vision.lengths(arrays).items()} | {
            f"text.{name}": each for name, each in of_text.items()
        }

    def flops(self, arrays: BatchArrays) -> float:
        rows, features = arrays["tokens"].shape[0], self.compared[0]
        forward = self.vision.pooled_flops(arrays)
        for read, projection in (
            (self.vision.said_features, self.vision_projection),
            (self.text.hidden_size, self.text_projection),
        ):
            forward += 0 if projection is None else 2 * rows * read * projection.features
        forward += (2 if self.loss == "softmax" else 1) * 2 * rows * rows * features
        # Nothing is made of the text's head.
        text = StackedConfig.flops(self.text, self._text(arrays))
        return self.vision.flops(arrays) + text + 3 * forward

    def decided(self, arrays: BatchArrays) -> tuple[str, ...]:
        said = (*self.vision.decided(arrays), *self.text.decided(self._text(arrays)))
        return tuple(dict.fromkeys(said))

    def exchanges(self, step: StepOnMesh) -> tuple[Exchange, ...]:
        devices = Share(step).rows
        if devices == 1 or self.loss == "softmax":
            return ()
        return (ring_exchange(step.rows // devices, self.compared[0], devices, _row_axes(step)),)

    def check_devices(self) -> None:
        self.vision.check_devices()
        self.text.check_devices()

    def check_batch(self, arrays: BatchArrays) -> None:
        text = dict.fromkeys(("tokens", "segment_ids"), "int32")
        check_arrays(arrays, {"images": "float32", **text, "loss_mask": "float32"}, {})
        self.vision.check_pictures(arrays)
        self.text.check_rows(arrays, tuple(text), chunked=False)
        rows = arrays["tokens"].shape[:1]
        for name in ("images", "loss_mask"):
            if arrays[name].shape[:1] != rows or (name == "loss_mask" and len(arrays[name].shape) > 1):
                raise InputError(
                    f"batch array '{name}' has the shape {arrays[name].shape}; there is one of each of "
                    f"{rows[0]} texts"
                )

    def _text(self, arrays: BatchArrays) -> BatchArrays:
        """What the tower of texts reads."""
        tokens = arrays["tokens"]
        if self.pad_token is not None:
            shape = (tokens.shape[0], self.text.longest_row or tokens.shape[1])
            tokens = dataclasses.replace(tokens, shape=shape)
        return {"tokens": tokens, "segment_ids": tokens}


def _row_axes(step: StepOnMesh) -> tuple[str, ...]:
    return tuple(axis for axis in step.rules.mesh_axes("batch") if step.sizes.get(axis, 1) > 1)


def _check_tower(text: TokenModelConfig) -> None:
    """Raise if the text's tower has a head, which would stay untrained."""
    if not text.tie_embeddings:
        raise InputError("model.text.tie_embeddings = false makes a head that is not used; set it to true")
    heads = {
        "model.text.head_bias = true": text.head_bias,
        "model.text.head_transform": text.head_transform is not None,
        "model.text.classes": getattr(text, "classes", None) is not None,
        "model.text.pooler = true": bool(getattr(text, "pooler", False)),
        "model.text.contrastive": text.rows_together is not None,
    }
    for name, there in heads.items():
        if there:
            raise InputError(f"{name} is of a head that is not used; take it out")
