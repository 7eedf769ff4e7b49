"""BERT: encoders of text, trained to find hidden tokens (Devlin et al. 2019; Warner et al. 2024)."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from flax import nnx

from mjx.batch import BatchArrays, check_arrays
from mjx.errors import InputError
from mjx.models.bert.heads import reheaded_tree
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.classes import check_labels, labelled, other_classifier
from mjx.models.common.contrastive import ContrastiveConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import NormPlacement, SublayerConfig, placed_norms
from mjx.models.common.rope import RoPEConfig
from mjx.models.common.token_model.config import TokenModelConfig
from mjx.models.common.token_model.model import TokenModel
from mjx.trees import Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(TokenModelConfig):
    """An encoder: `num_layers` times attention to the whole row, or its document, and an MLP.

    The defaults are Megatron's kind of layer, with its norm in front.
    """

    family: ClassVar[str] = "bert"
    stack_name: ClassVar[str] = "encoder"
    training_choices: ClassVar[tuple[str, ...]] = (
        *TokenModelConfig.training_choices,
        *("attention.dropout", "attention.implementation"),
    )
    heads: ClassVar[tuple[str, ...]] = (
        *("head_transform", "head_bias", "head", "pooler", "sentence_head", "classifier"),
    )

    num_layers: int
    """Pairs of an attention sub-layer and one of an MLP."""
    attention: AttentionConfig
    """Of every layer, to both sides whatever its `causal` says; `window_pattern` takes windows from some."""
    mlp: MLPConfig
    """Of every layer."""
    norm: NormConfig = NormConfig()
    """Of every sub-layer, and before the head."""
    norm_placement: NormPlacement = "input"
    """input: x + f(norm(x)). residual: norm(x + f(x)), as the first BERT; then there is none before the head.
    output, both and stream: as for GPT."""
    first_norm: bool = True
    """false: the first attention reads the embeddings as they are, which are normed already (ModernBERT)."""
    window_pattern: tuple[bool, ...] = (True,)
    """Which layers keep attention.window, repeated over the depth: `[false, true, true]` is two of three."""
    window_rope: RoPEConfig | None = None
    """Rotation of the layers that keep attention.window (ModernBERT); null: attention.rope, as in others."""
    pooling: Literal["first", "mean"] = "first"
    """Of which tokens what is said of whole rows is made: the first, or the mean of all."""
    pooler: bool = False
    """A layer and tanh behind that."""
    sentence_head: bool = False
    """Tell from the pooled row whether its second sentence is another's (next sentence, or their order)."""
    classes: int | None = None
    """Labels of whole rows, told by a classifier behind `pooler`, or `head_transform` (ModernBERT), and
    learned in place of hidden tokens; 1: a number (regression). null for none."""
    labels: tuple[str, ...] = ()
    """Their names, in order; []: those of data.classes, which stay with the run."""
    contrastive: ContrastiveConfig | None = None
    """Learn, in place of hidden tokens, which two texts belong together, by the angle between what `pooling`
    makes of them; null: do not."""

    def __post_init__(self):
        super().__post_init__()
        if self.num_layers < 1:
            raise InputError(f"model.num_layers = {self.num_layers} must be positive")
        if not self.window_pattern:
            raise InputError("model.window_pattern is empty; it needs at least one true or false")
        if self.window_rope is not None and self.attention.window is None:
            raise InputError("model.window_rope needs attention.window, which is null")
        if self.sentence_head and not self.pooler:
            raise InputError(
                "model.sentence_head = true reads what the pooler makes; set model.pooler = true"
            )
        if self.classes is not None:
            self._check_classes(self.classes)
        elif self.labels:
            raise InputError(f"model.labels = {list(self.labels)} name classes; set model.classes to as many")
        if self.contrastive is not None:
            self._check_contrastive()
        self.pattern  # noqa: B018  # its configs check themselves

    def _check_classes(self, classes: int) -> None:
        check_labels(classes, self.labels)
        if not self.pooler and self.head_transform is None:
            raise InputError(
                f"model.classes = {classes} reads what the pooler makes; set model.pooler = true"
            )
        self._check_idle(f"model.classes = {classes}", transformed=not self.pooler)

    def _check_contrastive(self) -> None:
        if self.classes is not None:
            raise InputError(
                f"model.contrastive and model.classes = {self.classes} are two tasks; set one of them to null"
            )
        self._check_idle("model.contrastive", transformed=False)

    def _check_idle(self, task: str, *, transformed: bool) -> None:
        """Raise if there is a head that the task leaves untrained."""
        idle = {
            "model.sentence_head = true": self.sentence_head,
            "model.head_transform": self.head_transform is not None and not transformed,
            "model.head_bias = true": self.head_bias,
            "model.tie_embeddings = false": not self.tie_embeddings,
        }
        for name, is_there in idle.items():
            if is_there:
                raise InputError(f"{name} is of a head that {task} leaves untrained; take it out")

    @classmethod
    def reheaded_tree(cls, given: Tree, section: Mapping[str, Any]) -> Tree | None:
        return reheaded_tree(given, section)

    def other_heads(self, given: "BertConfig") -> frozenset[str]:
        return frozenset({"classifier"} if other_classifier(self, given) else ())

    def labelled(self, labels: tuple[str, ...]) -> Self:
        return labelled(self, labels)

    @property
    def final_norm(self) -> NormConfig | None:
        return None if self.norm_placement == "residual" else self.norm

    def sublayers(self) -> tuple[SublayerConfig, ...]:
        """Attention, an MLP, attention, …"""
        attention = dataclasses.replace(self.attention.resolve(self.hidden_size), causal=False)
        norms = placed_norms(self.norm, self.norm_placement)
        sublayer = functools.partial(SublayerConfig, **norms, dropout=self.dropout)

        def of_layer(layer: int) -> tuple[SublayerConfig, ...]:
            windowed = self.window_pattern[layer % len(self.window_pattern)]
            window = attention.window if windowed else None
            rope = attention.rope if window is None or self.window_rope is None else self.window_rope
            first = sublayer(mixer=dataclasses.replace(attention, window=window, rope=rope))
            if not (layer or self.first_norm):
                first = dataclasses.replace(first, norm=None)
            return first, sublayer(mixer=self.mlp)

        return tuple(itertools.chain.from_iterable(map(of_layer, range(self.num_layers))))

    @property
    def rows_together(self) -> str | None:
        return None if self.contrastive is None else "model.contrastive"

    @property
    def rows_apart(self) -> bool:
        return self.contrastive is None and super().rows_apart

    @property
    def head_flops_per_token(self) -> float:
        of_tokens = self.classes is None and self.contrastive is None
        return super().head_flops_per_token if of_tokens else 0.0

    def flops(self, arrays: BatchArrays) -> float:
        rows, width = arrays["tokens"].shape[0], self.hidden_size
        if self.contrastive is not None:
            products = 2 if self.contrastive.symmetric else 1
            return 2 * super().flops(arrays) + 3 * products * 2 * rows * rows * width
        of_rows = 2 * self.sentence_head + (self.classes or 0)
        pooled = 2 * width * (width + of_rows) if of_rows else 0
        return super().flops(arrays) + 3 * rows * pooled

    def build(self, rngs: nnx.Rngs) -> TokenModel:
        from mjx.models.bert.model import Bert

        return Bert(self, rngs=rngs)

    def check_batch(self, arrays: BatchArrays) -> None:
        if self.classes is not None:
            self._check_labelled(arrays)
        elif self.contrastive is not None:
            self._check_pairs(arrays)
        else:
            self._check_hidden(arrays)

    def _check_hidden(self, arrays: BatchArrays) -> None:
        if "labels" in arrays and arrays["labels"].axes == ("batch",):
            raise InputError(
                "the batches have a label of each row, and model.classes = null: set it to how many there "
                "are (1: numbers)"
            )
        rows = {"tokens": "int32", "labels": "int32", "loss_mask": "float32"}
        optional = dict.fromkeys(("positions", "segment_ids", "token_types"), "int32")
        of_rows = {"is_random": "int32"}
        check_arrays(arrays, rows | (of_rows if self.sentence_head else {}), optional | of_rows)
        self._check_types(arrays, "data.pairs = false")
        self.check_rows(arrays, [name for name in arrays if name not in of_rows])

    def _check_labelled(self, arrays: BatchArrays) -> None:
        of_rows = {"labels": "float32" if self.classes == 1 else "int32", "loss_mask": "float32"}
        found = arrays.get("labels")
        if found is not None and found.axes == ("batch",) and found.dtype != of_rows["labels"]:
            raise InputError(
                "model.classes = 1 learns numbers; leave data.classes out"
                if self.classes == 1
                else f"model.classes = {self.classes} learns classes; name them as data.classes "
                "(model.classes = 1 learns numbers)"
            )
        optional: dict[str, str] = dict.fromkeys(("positions", "segment_ids", "token_types"), "int32")
        check_arrays(arrays, {"tokens": "int32", **of_rows}, optional)
        self._check_types(arrays, "data.token_types = false")
        self.check_rows(arrays, [name for name in arrays if name not in of_rows], chunked=False)
        self._check_of_rows(arrays, tuple(of_rows), f"model.classes = {self.classes}")

    def _check_pairs(self, arrays: BatchArrays) -> None:
        both = ("tokens", "segment_ids", "other_tokens", "other_segment_ids")
        check_arrays(arrays, {**dict.fromkeys(both, "int32"), "loss_mask": "float32"}, {})
        self.check_rows(arrays, both, chunked=False)
        self._check_of_rows(arrays, ("loss_mask",), "model.contrastive")

    def _check_of_rows(self, arrays: BatchArrays, names: tuple[str, ...], task: str) -> None:
        rows = arrays["tokens"].shape[:1]
        for name in names:
            if arrays[name].shape != rows:
                raise InputError(
                    f"batch array '{name}' has the shape {arrays[name].shape}; {task} takes one of each row, "
                    f"{rows}"
                )

    def _check_types(self, arrays: BatchArrays, or_else: str) -> None:
        if "token_types" in arrays and self.token_types < 2:
            raise InputError(
                f"the batches have an array 'token_types', but model.token_types = {self.token_types}; set "
                f"it to 2, or {or_else}"
            )
