"""GPT: decoder-only language models of attention and MLP (Radford et al. 2019; Touvron et al. 2023)."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import NormPlacement, SublayerConfig, placed_norms
from mjx.models.common.rope import RoPEConfig
from mjx.models.common.token_model.language_model import LanguageModelConfig
from mjx.parse import parse, to_tree
from mjx.trees import Tree, merge


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPTConfig(LanguageModelConfig):
    """A decoder: `num_layers` times attention and MLP between an embedding and a head.

    The defaults are GPT-2's kind of layer; `published.py` has the sizes of known models.
    """

    family: ClassVar[str] = "gpt"
    training_choices: ClassVar[tuple[str, ...]] = (
        *LanguageModelConfig.training_choices,
        *("attention.dropout", "attention.implementation"),
        *(f"moe.{name}" for name in MoEConfig.training_choices),
    )

    num_layers: int
    """Pairs of an attention sub-layer and one of an MLP or experts."""
    attention: AttentionConfig
    """Of every layer; `window_pattern` and `rope_pattern` take parts of it away from some."""
    mlp: MLPConfig | None = None
    """Of every layer without experts; null where all have them."""
    moe: MoEConfig | None = None
    """Experts in the place of the MLP, in the layers that `moe_pattern` and `dense_layers` leave them to."""
    moe_pattern: tuple[bool, ...] = (True,)
    """Which layers have experts, repeated over the depth: `[false, true]` is every other one."""
    dense_layers: int = 0
    """The first so many layers have the MLP, whatever `moe_pattern` says (DeepSeek-V3: 3)."""
    norm: NormConfig = NormConfig()
    """Of every sub-layer, and before the head."""
    norm_placement: NormPlacement = "input"
    """input: x + f(norm(x)). output: x + norm(f(x)), as OLMo 2. both: a norm on either side, as Gemma 2.
    residual: norm(x + f(x)), as the first GPT; then there is none before the head. stream: norm(x) +
    f(norm(x))."""
    parallel_residual: bool = False
    """The MLP reads what attention reads, x + attention(norm(x)) + mlp(norm'(x)), as GPT-J and GPT-NeoX."""
    residual_scale: float = 1.0
    """Factor on what each sub-layer adds to the residual stream (Granite)."""
    window_pattern: tuple[bool, ...] = (True,)
    """Which layers keep attention.window, repeated over the depth: `[true, false]` is every other one."""
    rope_pattern: tuple[bool, ...] = (True,)
    """Which layers keep their rotation, repeated over the depth."""
    window_rope: RoPEConfig | None = None
    """Rotation of the layers that keep attention.window (Gemma 3); null: attention.rope, as in the others."""

    def __post_init__(self):
        super().__post_init__()
        if self.num_layers < 1:
            raise InputError(f"model.num_layers = {self.num_layers} must be positive")
        for name in ("window_pattern", "rope_pattern", "moe_pattern"):
            if not getattr(self, name):
                raise InputError(f"model.{name} is empty; it needs at least one true or false")
        check_scale("model.residual_scale", self.residual_scale)
        if self.window_rope is not None and self.attention.window is None:
            raise InputError("model.window_rope needs attention.window, which is null")
        if self.norm_placement == "residual" and self.parallel_residual:
            raise InputError(
                "model.norm_placement = residual and model.parallel_residual = true do not go together: the "
                "norm of the sum would stand between attention and the MLP"
            )
        if self.moe is None and (self.moe_pattern != (True,) or self.dense_layers):
            raise InputError("model.moe_pattern and model.dense_layers need model.moe, which is null")
        if not 0 <= self.dense_layers <= self.num_layers:
            raise InputError(
                f"model.dense_layers = {self.dense_layers} must be from 0 to num_layers = {self.num_layers}"
            )
        if self.moe is not None and not any(self.moe_layers):
            raise InputError(
                "model.moe is given, but no layer has experts: model.moe_pattern = "
                f"{list(self.moe_pattern)}, model.dense_layers = {self.dense_layers} of num_layers = "
                f"{self.num_layers}"
            )
        if self.mlp is None and not all(self.moe_layers):
            dense = self.moe_layers.index(False)
            raise InputError(f"model.mlp is null, but layer {dense} has no experts, and needs it")
        self.pattern  # noqa: B018  # its configs check themselves

    @property
    def final_norm(self) -> NormConfig | None:
        return None if self.norm_placement == "residual" else self.norm

    @property
    def moe_layers(self) -> tuple[bool, ...]:
        """Which layers have experts."""
        layers = range(self.num_layers)
        return tuple(
            self.moe is not None and layer >= self.dense_layers and _at(self.moe_pattern, layer)
            for layer in layers
        )

    @classmethod
    def upcycled_tree(cls, dense: Tree, section: Mapping[str, Any]) -> Tree | None:
        """Its `moe` needs no `mlp`: experts are whole copies of the dense model's MLP, or with fewer
        `moe.mlp.features` slices of it."""
        moe = section.get("moe")
        if dense.get("moe") is not None or not isinstance(moe, Mapping) or dense.get("mlp") is None:
            return None
        over = {name: section[name] for name in ("moe_pattern", "dense_layers") if name in section}
        over["moe"] = merge({"mlp": dense["mlp"]}, moe)
        model = parse(cls, {**dense, **over}, "model")
        return to_tree(dataclasses.replace(model, mlp=None) if all(model.moe_layers) else model)

    def sublayers(self) -> tuple[SublayerConfig, ...]:
        """Attention, then an MLP or experts, attention, …"""
        attention = self.attention.resolve(self.hidden_size)

        def of_layer(layer: int) -> AttentionConfig:
            window = attention.window if _at(self.window_pattern, layer) else None
            rope = attention.rope if window is None or self.window_rope is None else self.window_rope
            return dataclasses.replace(
                attention, window=window, rope=rope if _at(self.rope_pattern, layer) else None
            )

        norms = placed_norms(self.norm, self.norm_placement, self.residual_scale)
        sublayer = functools.partial(SublayerConfig, **norms, dropout=self.dropout)
        behind_attention = functools.partial(sublayer, parallel=self.parallel_residual)
        kinds = [self.moe if routed else self.mlp for routed in self.moe_layers]
        layers = (
            (sublayer(mixer=of_layer(layer)), behind_attention(mixer=kind))
            for layer, kind in enumerate(kinds)
            if kind is not None
        )
        return tuple(itertools.chain.from_iterable(layers))


def _at(pattern: tuple[bool, ...], layer: int) -> bool:
    return pattern[layer % len(pattern)]
