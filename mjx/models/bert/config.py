"""BERT: encoders of text, trained to find hidden tokens (Devlin et al. 2019; Warner et al. 2024)."""

import dataclasses
import functools
import itertools
from typing import ClassVar

from flax import nnx

from mjx.batch import BatchArrays, check_arrays
from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import NormPlacement, SublayerConfig, placed_norms
from mjx.models.common.rope import RoPEConfig
from mjx.models.common.token_model.config import TokenModelConfig
from mjx.models.common.token_model.model import TokenModel


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
    pooler: bool = False
    """A layer and tanh on each row's first token, for what is said of whole rows."""
    sentence_head: bool = False
    """Tell from the pooled row whether its second sentence is another's (next sentence, or their order)."""
    classes: int | None = None
    """Labels of whole rows, told from the pooled row and learned in place of hidden tokens; 1: a number
    (regression). null for none."""

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
        self.pattern  # noqa: B018  # its configs check themselves

    def _check_classes(self, classes: int) -> None:
        if classes < 1:
            raise InputError(f"model.classes = {classes} must be positive, or null for none")
        if not self.pooler:
            raise InputError(
                f"model.classes = {classes} reads what the pooler makes; set model.pooler = true"
            )
        idle = {
            "model.sentence_head = true": self.sentence_head,
            "model.head_transform": self.head_transform is not None,
            "model.head_bias = true": self.head_bias,
            "model.tie_embeddings = false": not self.tie_embeddings,
        }
        for name, is_there in idle.items():
            if is_there:
                raise InputError(
                    f"{name} is of a head that model.classes = {classes} leaves untrained; take it out"
                )

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
    def head_flops_per_token(self) -> float:
        return 0.0 if self.classes is not None else super().head_flops_per_token

    def flops(self, arrays: BatchArrays) -> float:
        of_rows = 2 * self.sentence_head + (self.classes or 0)
        pooled = 2 * self.hidden_size * (self.hidden_size + of_rows) if of_rows else 0
        return super().flops(arrays) + 3 * arrays["tokens"].shape[0] * pooled

    def build(self, rngs: nnx.Rngs) -> TokenModel:
        from mjx.models.bert.model import Bert

        return Bert(self, rngs=rngs)

    def check_batch(self, arrays: BatchArrays) -> None:
        if self.classes is not None:
            self._check_labelled(arrays)
            return
        rows = {"tokens": "int32", "labels": "int32", "loss_mask": "float32"}
        optional = dict.fromkeys(("positions", "segment_ids", "token_types"), "int32")
        of_rows = {"is_random": "int32"}
        check_arrays(arrays, rows | (of_rows if self.sentence_head else {}), optional | of_rows)
        self._check_types(arrays, "data.pairs = false")
        self.check_rows(arrays, [name for name in arrays if name not in of_rows])

    def _check_labelled(self, arrays: BatchArrays) -> None:
        of_rows = {"labels": "float32" if self.classes == 1 else "int32", "loss_mask": "float32"}
        optional: dict[str, str] = dict.fromkeys(("positions", "segment_ids", "token_types"), "int32")
        check_arrays(arrays, {"tokens": "int32", **of_rows}, optional)
        self._check_types(arrays, "data.pair_key = null")
        self.check_rows(arrays, [name for name in arrays if name not in of_rows], chunked=False)
        rows = arrays["tokens"].shape[:1]
        for name in of_rows:
            if arrays[name].shape != rows:
                raise InputError(
                    f"batch array '{name}' has the shape {arrays[name].shape}; model.classes = "
                    f"{self.classes} takes one of each row, {rows}"
                )

    def _check_types(self, arrays: BatchArrays, or_else: str) -> None:
        if "token_types" in arrays and not self.token_types:
            raise InputError(
                "the batches have an array 'token_types', but model.token_types = 0; set it to 2, or "
                f"{or_else}"
            )
