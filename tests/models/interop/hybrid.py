"""A hybrid that no family has: recurrent layers and attention, MLPs and experts; only its shapes matter."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import parameter
from mjx.models.common.pattern import MixerConfig, SublayerConfig
from mjx.models.common.token_model.language_model import LanguageModelConfig
from mjx.models.interop.mixer_rows import attention_rows, mlp_rows, norm_rows
from mjx.models.interop.name_map import NameMap, Row
from mjx.models.interop.stack_map import stack_name_map

WORD = "M-ME*-ME" * 2 + "M-"
EXPERTS, MLP, HEADS, HEAD_DIM, GROUPS, STATE, WIDTH = 4, 6, 3, 4, 2, 5, 4


class Shapes(nnx.Module):
    def __init__(self, **shapes: tuple[int, ...]):
        for name, shape in shapes.items():
            setattr(self, name, parameter(jnp.zeros(shape), *(f"axis{at}" for at in range(len(shape)))))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertsConfig(MixerConfig):
    name: ClassVar[str] = "moe"

    def build(self, embed, *, std, output_std, rngs):
        up, down = (EXPERTS, embed, MLP), (EXPERTS, MLP, embed)
        return Shapes(router=(embed, EXPERTS), gate=up, up=up, down=down)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecurrentConfig(MixerConfig):
    name: ClassVar[str] = "recurrent"

    def build(self, embed, *, std, output_std, rngs):
        heads, state = (embed, HEADS, HEAD_DIM), (embed, GROUPS, STATE)
        return Shapes(
            z=heads,
            x=heads,
            B=state,
            C=state,
            dt=(embed, HEADS),
            x_filter=(HEADS, HEAD_DIM, WIDTH),
            B_filter=(GROUPS, STATE, WIDTH),
            C_filter=(GROUPS, STATE, WIDTH),
            A_log=(HEADS,),
            output=(HEADS, HEAD_DIM, embed),
        )


MIXERS = {
    "*": AttentionConfig(num_heads=4, num_query_groups=2, head_dim=4),
    "-": MLPConfig(features=MLP, gated=True),
    "E": ExpertsConfig(),
    "M": RecurrentConfig(),
}
NAMES = {symbol: mixer.name for symbol, mixer in MIXERS.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridConfig(LanguageModelConfig):
    family: ClassVar[str] = "hybrid"

    word: str

    @property
    def final_norm(self):
        return NormConfig(kind="rmsnorm")

    def sublayers(self):
        return tuple(SublayerConfig(mixer=MIXERS[symbol], norm=self.final_norm) for symbol in self.word)


def hybrid(word: str) -> HybridConfig:
    """Of Megatron's symbols: M recurrent, * attention, - MLP, E experts."""
    return HybridConfig(vocab_size=11, hidden_size=8, vocab_divisor=4, word=word)


def recurrent_rows(theirs: str) -> list[Row]:
    ours = "{recurrent}.recurrent"
    return [
        Row(
            f"{theirs}.in_proj.weight",
            tuple(f"{ours}.{name}" for name in ("z", "x", "B", "C", "dt")),
            "[(heads head_dim) | (heads head_dim) | (groups state) | (groups state) | heads] embed "
            "-> embed heads head_dim | embed heads head_dim "
            "| embed groups state | embed groups state | embed heads",
        ),
        Row(
            f"{theirs}.conv1d.weight",
            tuple(f"{ours}.{name}_filter" for name in ("x", "B", "C")),
            "[(heads head_dim) | (groups state) | (groups state)] 1 width -> "
            "heads head_dim width | groups state width | groups state width",
        ),
        Row(f"{theirs}.A_log", f"{ours}.A_log"),
        Row(f"{theirs}.out_proj.weight", f"{ours}.output", "embed (heads head_dim) -> heads head_dim embed"),
    ]


def expert_rows(theirs: str) -> list[Row]:
    """One tensor for each expert, as Mixtral."""
    ours = "{moe}.moe"
    return [
        Row(f"{theirs}.gate.weight", f"{ours}.router", "experts embed -> embed experts"),
        Row(f"{theirs}.experts.{{expert}}.w1.weight", f"{ours}.gate", "mlp embed -> embed mlp"),
        Row(f"{theirs}.experts.{{expert}}.w2.weight", f"{ours}.down", "embed mlp -> mlp embed"),
        Row(f"{theirs}.experts.{{expert}}.w3.weight", f"{ours}.up", "mlp embed -> embed mlp"),
    ]


def joined_expert_rows(theirs: str) -> list[Row]:
    """All experts in one tensor, gate and up in turn, as gpt-oss."""
    ours = "{moe}.moe"
    return [
        Row(f"{theirs}.router.weight", f"{ours}.router", "experts embed -> embed experts"),
        Row(
            f"{theirs}.experts.gate_up_proj",
            (f"{ours}.gate", f"{ours}.up"),
            "experts embed (mlp [1]) -> experts embed mlp",
        ),
        Row(f"{theirs}.experts.down_proj", f"{ours}.down"),
    ]


def model_rows(config: HybridConfig) -> list[Row]:
    return [
        Row("embed.weight", "embedding.weight", rows=config.vocab_size),
        *norm_rows(config.final_norm, "norm", "final_norm"),
        Row("head.weight", "head.weight", rows=config.vocab_size),
    ]


def paired_rows(config: HybridConfig, experts=expert_rows) -> list[Row]:
    """As Jamba: what mixes tokens and the MLP or experts behind it are one layer."""
    layer = "layers.{layer}"
    return [
        *model_rows(config),
        *(
            row
            for kinds, norm in ((("recurrent", "attention"), "input_norm"), (("mlp", "moe"), "ff_norm"))
            for kind in kinds
            for row in norm_rows(config.final_norm, f"{layer}.{norm}", f"{{{kind}}}.norm")
        ),
        *recurrent_rows(f"{layer}.mamba"),
        *attention_rows(MIXERS["*"], f"{layer}.self_attn"),
        *mlp_rows(MIXERS["-"], f"{layer}.feed_forward"),
        *experts(f"{layer}.feed_forward"),
    ]


def single_rows(config: HybridConfig) -> list[Row]:
    """As Nemotron-H: every sub-layer is a layer, and all of them are called mixer."""
    layer = "layers.{layer}"
    return [
        *model_rows(config),
        *(
            row
            for kind in NAMES.values()
            for row in norm_rows(config.final_norm, f"{layer}.norm", f"{{{kind}}}.norm")
        ),
        *recurrent_rows(f"{layer}.mixer"),
        *attention_rows(MIXERS["*"], f"{layer}.mixer"),
        *mlp_rows(MIXERS["-"], f"{layer}.mixer"),
        *expert_rows(f"{layer}.mixer"),
    ]


def paired(word=WORD, experts=expert_rows, extra=()) -> NameMap:
    config = hybrid(word)
    numbering = [at // 2 for at in range(len(word))]
    return stack_name_map(config, [*paired_rows(config, experts), *extra], numbering)


def tensors_of(names: NameMap) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    return {name: random.randn(*shape).astype(np.float32) for name, shape in names.theirs.items()}
