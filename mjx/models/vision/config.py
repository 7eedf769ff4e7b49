"""Vision transformers: encoders of pictures (Dosovitskiy et al. 2021)."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from flax import nnx

from mjx.batch import BatchArrays, check_arrays
from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.classes import check_labels, labelled, other_classifier
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import Lengths, NormPlacement, SublayerConfig, placed_norms
from mjx.models.common.pictures import Resizing
from mjx.models.common.pictures.encoder import PictureEncoderConfig
from mjx.models.vision.positions import View
from mjx.trees import Tree, plain

Pooling = Literal["class", "mean", "class and mean", "attention"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(PictureEncoderConfig):
    """Patches of a picture as tokens, and layers of attention to all of them and an MLP.

    The defaults are the first vision transformer's.
    """

    family: ClassVar[str] = "vision"
    stack_name: ClassVar[str] = "encoder"
    heads: ClassVar[tuple[str, ...]] = ("classifier", "pooler", "pooling")
    training_choices: ClassVar[tuple[str, ...]] = (
        *PictureEncoderConfig.training_choices,
        *("attention.dropout", "attention.implementation", "image_size", "position_crops"),
    )

    attention: AttentionConfig
    """Of every layer, to all patches whatever its `causal` says."""
    mlp: MLPConfig
    """Of every layer."""
    norm: NormConfig = NormConfig()
    """Of every sub-layer, and behind the last."""
    norm_placement: NormPlacement = "input"
    """As for GPT."""
    patch_bias: bool = True
    """Add a bias to what is made of a patch."""
    class_tokens: int = 1
    """Learned tokens in front of the patches, of which the first speaks for the picture."""
    registers: int = 0
    """Learned tokens behind those, which only give attention room (Darcet et al. 2024)."""
    mask_token: bool = False
    """There is a learned token that stands for patches that are hidden."""
    position_grid: tuple[int, int] | None = (14, 14)
    """Rows and columns of a table of learned positions, which is resized to other pictures; null for none."""
    window: int | None = None
    """Patches along each side of the windows that a picture is cut into, in which attention stays; null: it
    goes to the whole picture."""
    whole_layers: tuple[int, ...] = ()
    """The layers whose attention goes to the whole picture all the same, from 0."""
    class_positions: int = 1
    """How many of the class tokens have a position, too."""
    position_resizing: Resizing = "bicubic"
    """How the table is made larger or smaller; antialias: by all that a place covers; corners: its first and
    last positions stay those of the first and last patch."""
    position_view: View = "whole"
    """What of the table a picture of another shape takes: all of it, stretched; what it would cover of a
    square as large as its longer side (square), or the part that has its shape (aspect), both as RADIO."""
    position_crops: bool = False
    """In training, take a part of the table that is drawn anew for every picture, so that positions are
    learned at all scales (RADIO)."""
    embedding_norm: NormConfig | None = None
    """In front of the layers (CLIP); null for none."""
    layer_scale: float | None = None
    """What learned factors on the features of each sub-layer's output begin as (Touvron et al. 2021); null:
    there are none."""
    last_norm: Literal["tokens", "pooled"] | None = "tokens"
    """What the norm behind the last layer is of: of all tokens, or of the pooled picture alone (CLIP); null:
    there is none."""
    pooling: Pooling = "class"
    """What is said of a whole picture is made of: the first learned token, the mean of the patches, both, one
    behind the other (DINOv2), or what a learned query finds among the patches (SigLIP)."""
    pooler: bool = False
    """A layer and tanh on the pooled picture."""
    classes: int | None = None
    """Labels of pictures, told from the pooled one; 1: a number (regression). null for none."""
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers; empty: nobody has named them."""

    def __post_init__(self):
        super().__post_init__()
        if self.position_grid is not None and min(self.position_grid) < 1:
            raise InputError(f"model.position_grid = {list(self.position_grid)} must be positive, or null")
        for name in ("class_tokens", "registers"):
            if getattr(self, name) < 0:
                raise InputError(f"model.{name} = {getattr(self, name)} must be positive, or 0 for none")
        wrong = [layer for layer in self.whole_layers if not 0 <= layer < self.num_layers]
        if (self.window is not None and self.window < 1) or wrong:
            raise InputError(
                f"model.window = {self.window} must be positive, or null, and model.whole_layers = "
                f"{list(self.whole_layers)} from 0 to below model.num_layers = {self.num_layers}"
            )
        rope = self.attention.rope
        if rope is not None and (rope.sections is None or len(rope.sections) != 2):
            raise InputError(
                "model.attention.rope turns by the row and the column of a patch; set rope.sections to two "
                "numbers of pairs"
            )
        if self.window is not None and self.learned_tokens:
            raise InputError(
                f"model.window = {self.window} leaves learned tokens without a window; set "
                "model.class_tokens and model.registers = 0"
            )
        if not 0 <= self.class_positions <= self.class_tokens:
            raise InputError(
                f"model.class_positions = {self.class_positions} must be from 0 to model.class_tokens = "
                f"{self.class_tokens}"
            )
        if not self.class_tokens and self.pooling in ("class", "class and mean"):
            raise InputError(
                f"model.pooling = {self.pooling} needs a learned token; set model.class_tokens = 1, or pool "
                "by mean or attention"
            )
        if self.layer_scale is not None:
            check_scale("model.layer_scale", self.layer_scale, ", or null for none")
        if self.classes is not None:
            check_labels(self.classes, self.labels)
        elif self.labels:
            raise InputError(f"model.labels = {list(self.labels)} name classes; set model.classes to as many")
        self.pattern  # noqa: B018  # its configs check themselves

    @classmethod
    def reheaded_tree(cls, given: Tree, section: Mapping[str, Any]) -> Tree | None:
        asked = {
            name: plain(section[name])
            for name in ("classes", "labels", "pooling", "pooler")
            if name in section
        }
        if asked.get("classes") is None:
            return None
        labels = given["labels"] if asked["classes"] == given["classes"] else []
        tree = {**given, "labels": labels, **asked}
        return None if tree == given else tree

    def other_heads(self, given: "VisionConfig") -> frozenset[str]:
        return frozenset({"classifier"} if other_classifier(self, given) else ())

    def labelled(self, labels: tuple[str, ...]) -> Self:
        return labelled(self, labels)

    @property
    def final_norm(self) -> NormConfig | None:
        return self.norm if self.last_norm == "tokens" and self.norm_placement != "residual" else None

    @property
    def learned_tokens(self) -> int:
        return self.class_tokens + self.registers

    @property
    def pooled_features(self) -> int:
        """Of a pooled picture."""
        return self.hidden_size * (2 if self.pooling == "class and mean" else 1)

    def sublayers(self) -> tuple[SublayerConfig, ...]:
        """Attention, an MLP, attention, …"""
        attention = dataclasses.replace(self.attention.resolve(self.hidden_size), causal=False)
        sublayer = functools.partial(
            SublayerConfig,
            **placed_norms(self.norm, self.norm_placement),
            output_gain=self.layer_scale,
            dropout=self.dropout,
        )
        windowed = dataclasses.replace(attention, windowed=self.window is not None)
        layers = (
            (sublayer(mixer=attention if layer in self.whole_layers else windowed), sublayer(mixer=self.mlp))
            for layer in range(self.num_layers)
        )
        return tuple(itertools.chain.from_iterable(layers))

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        from mjx.models.vision.model import VisionTransformer

        return VisionTransformer(self, rngs=rngs)

    def lengths(self, arrays: BatchArrays) -> dict[str, Lengths]:
        return {self.stack_name: Lengths(self.tokens_in(arrays)[1])}

    @property
    def said_features(self) -> int:
        return self.hidden_size if self.pooler else self.pooled_features

    def flops(self, arrays: BatchArrays) -> float:
        rows, sequence = self.tokens_in(arrays)
        told = 0.0
        if self.classes is not None:
            told = self.pooled_flops(arrays) + 2 * rows * self.said_features * self.classes
        return super().flops(arrays) + 3 * (
            2 * rows * sequence * self.patch_features * self.hidden_size + told
        )

    def pooled_flops(self, arrays: BatchArrays) -> float:
        (rows, sequence), embed, pooled = self.tokens_in(arrays), self.hidden_size, 0.0
        if self.pooling == "attention":  # keys and values of all tokens, the output and an MLP
            per_token = 2 * 2 * embed * embed + 4 * embed
            pooled = sequence * per_token + 2 * embed * embed
            pooled += self.mlp.flops_per_token(embed, Lengths(1))
        elif self.pooling != "class":
            pooled = 2 * sequence * embed
        if self.pooler:
            pooled += 2 * self.pooled_features * embed
        of_query = 2 * embed**2 if self.pooling == "attention" else 0
        return rows * pooled + of_query

    def check_batch(self, arrays: BatchArrays) -> None:
        if self.classes is None:
            raise InputError(
                "model.classes = null leaves nothing to learn from labels; set it to their number"
            )
        labels = {"labels": "float32" if self.classes == 1 else "int32", "loss_mask": "float32"}
        if "images" in arrays:
            check_arrays(arrays, {"images": "float32", **labels}, {})
        else:
            places = {"grid": "int32", "segment_ids": "int32"}
            check_arrays(arrays, {"patches": "float32", **labels}, places)
        self.check_pictures(arrays)
