"""Mamba and hybrids: language models whose sub-layers a pattern string names, one symbol for each.

Gu and Dao 2023 (Mamba), Dao and Gu 2024 (Mamba-2), Waleffe et al. 2024 (hybrids in Megatron).
"""

import dataclasses
import functools
import itertools
from typing import ClassVar

from mjx.bounds import check_scale
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import MixerConfig, ResidualConfig, SublayerConfig
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig
from mjx.models.common.token_model.language_model import LanguageModelConfig
from mjx.models.mamba.hybrid_pattern import MIXERS, SHARED, Place, missing, read_pattern, symbols_of
from mjx.models.mamba.shared_block import SharedBlockConfig, SharedPlaceConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """Factors on both sides of a mixer."""

    input: float = 1.0
    """On what it reads, behind the norm."""
    output: float = 1.0
    """On what it adds to the residual stream, besides model.residual_scale."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalesConfig:
    """Factors around mixers, by which learning rates suit every width (μP: Yang et al. 2022)."""

    ssd: ScaleConfig = ScaleConfig()
    """Of M."""
    selective_scan: ScaleConfig = ScaleConfig()
    """Of m."""
    attention: ScaleConfig = ScaleConfig()
    """Of *."""
    mlp: ScaleConfig = ScaleConfig()
    """Of -."""
    moe: ScaleConfig = ScaleConfig()
    """Of E."""
    shared_block: ScaleConfig = ScaleConfig()
    """Of S."""

    def __post_init__(self):
        for mixer in dataclasses.fields(self):
            for side in dataclasses.fields(ScaleConfig):
                value = getattr(getattr(self, mixer.name), side.name)
                check_scale(f"model.scales.{mixer.name}.{side.name}", value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MambaConfig(LanguageModelConfig):
    """A decoder of pre-norm residual sub-layers between an embedding and a head.

    What a symbol stands for is described once, for all of its places.
    """

    family: ClassVar[str] = "mamba"
    training_choices: ClassVar[tuple[str, ...]] = (
        *LanguageModelConfig.training_choices,
        *("attention.dropout", "attention.implementation"),
        *(f"ssd.{name}" for name in SSDConfig.training_choices),
        *(f"selective_scan.{name}" for name in SelectiveScanConfig.training_choices),
        *(f"moe.{name}" for name in MoEConfig.training_choices),
        *("shared_block.attention.dropout", "shared_block.attention.implementation"),
    )

    hybrid_pattern: str
    """A symbol for each sub-layer: M Mamba-2, m Mamba-1, * attention, - MLP, E experts, S a block whose
    weights its places share, and whose output only the next sub-layer reads (Zamba2). Those in brackets stand
    side by side: in `(M*)` both read the stream behind one norm (Falcon-H1). `|` may stand between them, as
    where Megatron begins a pipeline stage, and changes nothing."""
    ssd: SSDConfig | None = None
    """Of M."""
    selective_scan: SelectiveScanConfig | None = None
    """Of m."""
    attention: AttentionConfig | None = None
    """Of *."""
    mlp: MLPConfig | None = None
    """Of -."""
    moe: MoEConfig | None = None
    """Of E."""
    shared_block: SharedBlockConfig | None = None
    """Of S."""
    norm: NormConfig = NormConfig(kind="rmsnorm")
    """Of every sub-layer's input, and before the head."""
    residual_scale: float = 1.0
    """Factor on what each sub-layer adds to the residual stream."""
    scales: ScalesConfig = ScalesConfig()
    """Factors on what some kinds of mixers read and write."""

    def __post_init__(self):
        super().__post_init__()
        check_scale("model.residual_scale", self.residual_scale)
        self.pattern  # noqa: B018  # its configs check themselves

    @property
    def final_norm(self) -> NormConfig:
        return self.norm

    @property
    def symbols(self) -> str:
        """One for each sub-layer."""
        return symbols_of(self.hybrid_pattern)

    def sublayers(self) -> tuple[SublayerConfig, ...]:
        @functools.cache
        def of(place: Place, number: int) -> SublayerConfig:
            field, beside, aside = MIXERS[place.symbol], place.beside, place.symbol == SHARED
            scale: ScaleConfig = getattr(self.scales, field)
            return SublayerConfig(
                mixer=self._mixer(field, number),
                norm=None if beside or aside else self.norm,
                parallel=beside,
                shares_norm=beside,
                aside=aside,
                input_scale=scale.input,
                residual=ResidualConfig(scale=self.residual_scale * scale.output),
                dropout=self.dropout,
            )

        places, turns = read_pattern(self.hybrid_pattern), itertools.count()
        blocks = 1 if self.shared_block is None else self.shared_block.blocks
        return tuple(of(place, next(turns) % blocks if place.symbol == SHARED else 0) for place in places)

    def _mixer(self, field: str, number: int) -> MixerConfig:
        """What a field describes, every size filled in; `number` is that of a shared block."""
        mixer = getattr(self, field)
        if mixer is None:
            raise missing(self.hybrid_pattern, field)
        resolve = getattr(mixer, "resolve", None)
        resolved = mixer if resolve is None else resolve(self.hidden_size)
        if isinstance(resolved, SharedBlockConfig):
            return SharedPlaceConfig(block=resolved, norm=self.norm, number=number)
        return resolved
